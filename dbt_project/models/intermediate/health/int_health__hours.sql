{{ config(materialized='rebuilt', timeframe='1h') }}

with minutes as (
    select * from {{ ref('stg_market__candles_1m') }}
),

counted as (
    select
        minutes.symbol,
        date_bin('1 hour', minutes.open_time, '2001-01-01 00:00:00+00') as open_time,
        count(*)::integer as present_minutes,
        (count(*) filter (where minutes.status = 'verified'))::integer as verified_minutes,
        (count(*) filter (where minutes.status = 'unconfirmed'))::integer as unconfirmed_minutes,
        (count(*) filter (where minutes.status = 'partial'))::integer as partial_minutes,
        (count(*) filter (where minutes.trade_count = 0))::integer as silent_minutes,
        (count(*) filter (where minutes.revision > 0))::integer as revised_minutes,
        min(minutes.open_time) as first_minute,
        max(minutes.open_time) as newest_minute,
        max(minutes.open_time) filter (where minutes.status = 'verified') as newest_verified_minute
    from minutes {{ only_touched('minutes') }}
    group by 1, 2
)

select
    *,
    now() as built_at
from counted
