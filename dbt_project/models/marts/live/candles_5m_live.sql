{{ live('5m') }}
