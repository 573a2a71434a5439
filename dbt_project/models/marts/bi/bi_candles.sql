with bars as (
    select * from {{ ref('candles').render() }}
)

select
    timeframe,
    symbol,
    open_time,
    next_open_time,
    open::double precision as open,
    high::double precision as high,
    low::double precision as low,
    close::double precision as close,  -- noqa: RF04
    volume::double precision as volume,
    quote_volume::double precision as quote_volume,
    trade_count,
    taker_buy_volume::double precision as taker_buy_volume,
    taker_buy_quote_volume::double precision as taker_buy_quote_volume,
    is_complete
from bars
