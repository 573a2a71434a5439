{{ config(materialized='view', tags=['days', 'intraday']) }}

{%- for timeframe in ['1m'] + timeframes().keys() | list %}
select
    '{{ timeframe }}'::text collate "C" as timeframe,
    symbol,
    open_time,
    next_open_time,
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
    minute_count,
    is_complete,
    built_at
from {{ ref(model_of(timeframe)).render() }}
{% if not loop.last %}union all{% endif %}
{%- endfor %}
