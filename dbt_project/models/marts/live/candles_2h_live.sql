{{ live('2h') }}
