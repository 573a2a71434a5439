with days as (
    select * from {{ ref('stg_ops__reconciliations').render() }}
)

select
    day,
    count(*) as symbols,
    count(*) filter (where verdict = 'agrees') as agreeing_symbols,
    count(*) filter (where verdict = 'differs') as differing_symbols,
    count(*) filter (where verdict = 'incomplete') as incomplete_symbols,
    sum(stored_minutes)::bigint as stored_minutes,
    sum(verified_minutes)::bigint as verified_minutes,
    sum(live_differing)::bigint as live_differing_minutes,
    sum(rest_differing)::bigint as rest_differing_minutes,
    sum(daily_differing)::bigint as daily_differing_minutes,
    sum(monthly_differing)::bigint as monthly_differing_minutes,
    array_agg(symbol order by symbol) filter (where verdict = 'differs') as symbols_that_differ,
    max(reconciled_at) as reconciled_at
from days
group by day
