{{ roll_up('2h') }}
