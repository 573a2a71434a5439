{{ live('1w') }}
