{{ union_of_bars() }}
