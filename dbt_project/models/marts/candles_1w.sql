{{ roll_up('1w') }}
