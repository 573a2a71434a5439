{{ live('12h') }}
