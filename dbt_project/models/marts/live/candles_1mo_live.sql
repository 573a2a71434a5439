{{ live('1M') }}
