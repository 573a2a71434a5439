{{ roll_up('6h') }}
