{{ roll_up('3m') }}
