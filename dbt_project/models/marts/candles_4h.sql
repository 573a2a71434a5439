{{ roll_up('4h') }}
