{{ config(materialized='rebuilt', timeframe='1d', parent='int_health__hours') }}

with hours as (
    select * from {{ ref('int_health__hours') }}
),

counted as (
    select
        hours.symbol,
        date_bin('1440 minutes', hours.open_time, '2001-01-01 00:00:00+00') as open_time,
        {{- sum_minute_counts('hours') }},
        min(hours.first_minute) as first_minute,
        max(hours.newest_minute) as newest_minute,
        max(hours.newest_verified_minute) as newest_verified_minute
    from hours {{ only_touched('hours') }}
    group by 1, 2
)

select
    *,
    now() as built_at
from counted
