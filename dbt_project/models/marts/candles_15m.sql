{{ roll_up('15m') }}
