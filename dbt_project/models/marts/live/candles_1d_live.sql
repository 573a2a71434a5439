{{ live('1d') }}
