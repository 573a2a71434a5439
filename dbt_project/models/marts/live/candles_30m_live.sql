{{ live('30m') }}
