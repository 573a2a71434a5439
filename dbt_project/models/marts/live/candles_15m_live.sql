{{ live('15m') }}
