{{ union_of_bars(is_live=true) }}
