with gaps as (
    select * from {{ ref('stg_ops__gaps').render() }}
)

select
    gap_id,
    symbol,
    dataset,
    cause,
    from_time,
    to_time,
    round(extract(epoch from to_time - from_time) / 60, 3) as missed_minutes,
    repaired_at is null as is_open,
    opened_at,
    repaired_at,
    repaired_by,
    coalesce(repaired_at, now()) - opened_at as open_for,
    attempts,
    claimed_by,
    detail,
    -- Gaps of raw capture are only recorded; gaps of candles are repaired.
    repaired_at is null
    and dataset = 'candles_1m'
    and opened_at < now() - interval '{{ var("health_gap_patience_minutes") | int }} minutes'
        as is_overdue
from gaps
