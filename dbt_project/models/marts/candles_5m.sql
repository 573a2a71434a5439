{{ roll_up('5m') }}
