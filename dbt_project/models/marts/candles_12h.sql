{{ roll_up('12h') }}
