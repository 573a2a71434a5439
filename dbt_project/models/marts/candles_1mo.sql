{{ roll_up('1M') }}
