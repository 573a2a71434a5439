{{ live('6h') }}
