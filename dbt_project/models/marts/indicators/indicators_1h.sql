{{ stored_indicators('1h') }}
