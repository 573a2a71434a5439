{{ roll_up('30m') }}
