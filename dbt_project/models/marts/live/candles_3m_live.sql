{{ live('3m') }}
