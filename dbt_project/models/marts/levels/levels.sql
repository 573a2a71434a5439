{{ price_levels() }}
