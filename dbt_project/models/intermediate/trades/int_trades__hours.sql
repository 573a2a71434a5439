{{ config(materialized='from_trades', parent='footprint_1m', by_hours=true) }}

with minutes as (
    select f.*
    from {{ ref('footprint_1m').render() }} as f
    {{ only_touched_sessions('f', 'open_time') }}
),

-- Each minute is counted in its lowest bucket, so that a sum over buckets counts minutes.
lowest as (
    select
        symbol,
        open_time,
        min(price_low) as price_low
    from minutes
    group by symbol, open_time
),

-- An hour has the widest bucket width of its minutes; the other widths divide it.
hours as (
    select
        symbol,
        date_bin('1 hour', open_time, '2001-01-01 00:00:00+00') as hour_open,
        max(price_step) as price_step
    from minutes
    group by symbol, hour_open
),

in_buckets as (
    select
        minutes.*,
        hours.hour_open,
        hours.price_step as hour_step,
        div(minutes.price_low, hours.price_step) as place,
        minutes.price_low = lowest.price_low as is_lowest
    from minutes
    inner join lowest
        on minutes.symbol = lowest.symbol and minutes.open_time = lowest.open_time
    inner join hours
        on
            minutes.symbol = hours.symbol
            and date_bin('1 hour', minutes.open_time, '2001-01-01 00:00:00+00') = hours.hour_open
)

select
    symbol,
    session,
    hour_open as open_time,
    hour_step as price_step,
    dataset,
    place * hour_step as price_low,
    sum(bid_volume) as bid_volume,
    sum(ask_volume) as ask_volume,
    sum(trade_count)::bigint as trade_count,
    min(first_trade_id) as first_trade_id,
    max(last_trade_id) as last_trade_id,
    (count(*) filter (where is_lowest))::integer as minute_count,
    now() as built_at
from in_buckets
group by symbol, session, hour_open, place, hour_step, dataset
