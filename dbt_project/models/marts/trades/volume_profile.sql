{{ config(materialized='from_trades', parent='int_trades__hours') }}

with hours as (
    select h.*
    from {{ ref('int_trades__hours').render() }} as h
    {{ only_touched_sessions('h', 'open_time') }}
),

-- A session has the widest bucket width of its hours; the other widths divide it.
sessions as (
    select
        symbol,
        session,
        max(price_step) as price_step
    from hours
    group by symbol, session
),

in_buckets as (
    select
        hours.*,
        sessions.price_step as session_step,
        div(hours.price_low, sessions.price_step) as place
    from hours
    inner join sessions
        on hours.symbol = sessions.symbol and hours.session = sessions.session
)

select
    symbol,
    session,
    place * session_step as price_low,
    (place + 1) * session_step as price_high,
    sum(bid_volume + ask_volume) as volume,
    sum(bid_volume) as bid_volume,
    sum(ask_volume) as ask_volume,
    sum(ask_volume - bid_volume) as delta,
    sum(trade_count)::bigint as trade_count,
    now() as built_at
from in_buckets
group by symbol, session, place, session_step
