with coverage as (
    select * from {{ ref('health_coverage').render() }}
)

select
    symbol,
    day,
    expected_minutes,
    present_minutes,
    verified_minutes,
    outage_minutes,
    missing_minutes,
    is_whole,
    present_minutes::double precision / nullif(expected_minutes - outage_minutes, 0)
        as present_share,
    verified_minutes::double precision / nullif(expected_minutes - outage_minutes, 0)
        as verified_share
from coverage
