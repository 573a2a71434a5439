with results as (
    select * from {{ ref('stg_ops__quality_results').render() }}
),

dated as (
    select
        *,
        (run_at at time zone 'UTC')::date as utc_day
    from results
),

counted as (
    select
        utc_day,
        suite,
        check_name,
        min(severity) as severity,
        count(*) as runs,
        count(*) filter (where not success) as failed_runs,
        max(failing_count) as most_failing_rows,
        (array_agg(failing_count order by run_at desc))[1] as last_failing_rows,
        min(run_at) as first_run_at,
        max(run_at) as last_run_at,
        (array_agg(success order by run_at desc))[1] as last_success
    from dated
    group by utc_day, suite, check_name
)

select
    utc_day as run_day,
    suite,
    check_name,
    severity,
    runs,
    failed_runs,
    most_failing_rows,
    last_failing_rows,
    first_run_at,
    last_run_at,
    last_success
from counted
