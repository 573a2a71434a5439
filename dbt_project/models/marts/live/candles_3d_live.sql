{{ live('3d') }}
