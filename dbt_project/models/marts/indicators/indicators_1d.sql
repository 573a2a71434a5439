{{ stored_indicators('1d') }}
