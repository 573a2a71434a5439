-- Failures since the last daily run over all rows. A row that was repaired since then is still
-- listed.
with failures as (
    select * from {{ ref('stg_ops__quality_failures').render() }}
),

checked as (
    select max(run_at) as run_at from {{ source('ops', 'quality_runs').render() }}
    where scope = 'all' and run_at > now() - interval '2 days'
)

select distinct
    failures.symbol,
    failures.check_name
from failures
cross join checked
where
    failures.symbol is not null
    and failures.severity = 'error'
    and failures.run_at >= coalesce(checked.run_at, now() - interval '2 days')
