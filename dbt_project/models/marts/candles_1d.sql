{{ roll_up('1d') }}
