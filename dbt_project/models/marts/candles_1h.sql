{{ roll_up('1h') }}
