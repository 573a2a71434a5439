{{ live('8h') }}
