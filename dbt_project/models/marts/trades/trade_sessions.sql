{{ config(
    materialized='from_trades',
    parent='volume_profile',
    functions=['value_area_function'],
) }}
{%- set share = var('value_area_share') %}

with buckets as (
    select p.*
    from {{ ref('volume_profile').render() }} as p
    {{ only_touched_sessions('p') }}
),

totals as (
    select
        symbol,
        session,
        min(price_high - price_low) as price_step,
        min(price_low) as lowest,
        max(price_high) as highest,
        sum(volume) as volume,
        sum(bid_volume) as bid_volume,
        sum(ask_volume) as ask_volume,
        sum(trade_count)::bigint as trade_count
    from buckets
    group by symbol, session
),

sessions as (
    select
        *,
        div(highest - lowest, price_step)::integer as bucket_count
    from totals
),

-- Empty buckets count as well: a value area is contiguous.
dense as (
    select
        sessions.symbol,
        sessions.session,
        array_agg(coalesce(buckets.volume, 0) order by place.number) as volumes
    from sessions
    cross join lateral generate_series(0, sessions.bucket_count - 1) as place (number)
    left join buckets
        on
            sessions.symbol = buckets.symbol
            and sessions.session = buckets.session
            and buckets.price_low = sessions.lowest + place.number * sessions.price_step
    group by sessions.symbol, sessions.session
),

ids as (
    select
        h.symbol,
        h.session,
        min(h.first_trade_id) as first_trade_id,
        max(h.last_trade_id) as last_trade_id,
        sum(h.minute_count)::integer as minute_count,
        string_agg(distinct h.dataset, ',' order by h.dataset) as datasets
    from {{ ref('int_trades__hours').render() }} as h
    {{ only_touched_sessions('h', 'open_time') }}
    group by h.symbol, h.session
),

areas as (
    select
        dense.*,
        area.control,
        area.lowest,
        area.highest
    from dense
    cross join lateral {{ this.schema }}.value_area(dense.volumes, {{ share }}) as area
)

select
    sessions.symbol,
    sessions.session,
    sessions.price_step,
    sessions.lowest as price_low,
    sessions.highest as price_high,
    sessions.volume,
    sessions.bid_volume,
    sessions.ask_volume,
    sessions.trade_count,
    ids.first_trade_id,
    ids.last_trade_id,
    ids.minute_count,
    ids.datasets,
    sessions.ask_volume - sessions.bid_volume as delta,
    sessions.lowest + (areas.control - 0.5) * sessions.price_step as point_of_control,
    areas.volumes[areas.control] as control_volume,
    sessions.lowest + (areas.lowest - 1) * sessions.price_step as value_area_low,
    sessions.lowest + areas.highest * sessions.price_step as value_area_high,
    (
        select sum(held.volume)
        from unnest(areas.volumes[areas.lowest:areas.highest]) as held (volume)
    ) as value_area_volume,
    now() as built_at
from sessions
inner join areas on sessions.symbol = areas.symbol and sessions.session = areas.session
inner join ids on sessions.symbol = ids.symbol and sessions.session = ids.session
