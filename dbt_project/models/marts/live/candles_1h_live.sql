{{ live('1h') }}
