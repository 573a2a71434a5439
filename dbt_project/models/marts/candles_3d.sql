{{ roll_up('3d') }}
