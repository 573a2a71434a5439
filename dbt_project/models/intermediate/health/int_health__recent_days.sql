{{ coverage_query(
    since="date_trunc('day', now(), 'UTC') - interval '" ~ 1440 * (var('health_days') | int - 1) ~ " minutes'"
) }}
