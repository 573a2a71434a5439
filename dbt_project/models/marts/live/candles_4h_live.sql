{{ live('4h') }}
