{{ differing_bars_function() }}
