{{ roll_up('8h') }}
