with coverage as (
    {{ coverage_query() }}
),

verdicts as (
    select * from {{ ref('stg_ops__reconciliations').render() }}
)

select
    coverage.symbol,
    coverage.day,
    coverage.expected_minutes,
    coverage.present_minutes,
    coverage.verified_minutes,
    coverage.unconfirmed_minutes,
    coverage.partial_minutes,
    coverage.silent_minutes,
    coverage.revised_minutes,
    coverage.repaired_minutes,
    coverage.outage_minutes,
    coverage.missing_minutes,
    verdicts.verdict,
    coverage.missing_minutes = 0
    and coverage.verified_minutes = coverage.present_minutes as is_whole
from coverage
left join verdicts on coverage.symbol = verdicts.symbol and coverage.day = verdicts.day
