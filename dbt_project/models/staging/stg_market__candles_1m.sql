-- No CTE: PostgreSQL plans a view with a CTE separately, and a build of one bar would then read
-- every minute. render(): --empty must not leave an empty view behind.
select
    symbol,
    open_time,
    open,
    high,
    low,
    close,
    volume,
    quote_volume,
    trade_count,
    taker_buy_volume,
    taker_buy_quote_volume,
    first_trade_id,
    last_trade_id,
    status,
    source,
    revision,
    updated_at as built_at,
    1 as minute_count,
    true as is_complete,
    open_time + interval '1 minute' as next_open_time
from {{ source('market', 'candles_1m').render() }}
