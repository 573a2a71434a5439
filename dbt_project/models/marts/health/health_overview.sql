with freshness as (
    select * from {{ ref('health_freshness').render() }}
),

recent as (
    select
        symbol,
        sum(expected_minutes)::bigint as expected_minutes,
        sum(present_minutes)::bigint as present_minutes,
        sum(verified_minutes)::bigint as verified_minutes,
        sum(missing_minutes)::bigint as missing_minutes
    from {{ ref('int_health__recent_days').render() }}
    group by symbol
),

gaps as (
    select
        symbol,
        count(*) as open_gaps,
        count(*) filter (where is_overdue) as overdue_gaps,
        min(from_time) as oldest_gap_from
    from {{ ref('health_gaps').render() }}
    where is_open and dataset = 'candles_1m'
    group by symbol
),

verdicts as (
    select
        symbol,
        count(*) filter (where verdict = 'differs') as differing_days,
        max(day) as last_compared_day
    from {{ ref('stg_ops__reconciliations').render() }}
    where day > (now() at time zone 'UTC')::date - 30
    group by symbol
),

failures as (
    select
        symbol,
        array_agg(check_name order by check_name) as failing_checks
    from {{ ref('int_health__broken_checks').render() }}
    group by symbol
),

gathered as (
    select
        freshness.*,
        gaps.oldest_gap_from,
        verdicts.last_compared_day,
        coalesce(recent.expected_minutes, 0) as expected_minutes,
        coalesce(recent.present_minutes, 0) as present_minutes,
        coalesce(recent.verified_minutes, 0) as verified_minutes,
        coalesce(recent.missing_minutes, 0) as missing_minutes,
        coalesce(recent.present_minutes - recent.verified_minutes, 0) as unverified_minutes,
        coalesce(gaps.open_gaps, 0) as open_gaps,
        coalesce(gaps.overdue_gaps, 0) as overdue_gaps,
        coalesce(verdicts.differing_days, 0) as differing_days,
        coalesce(failures.failing_checks, '{}') as failing_checks,
        to_char(freshness.newest_minute at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as newest_text,
        to_char(gaps.oldest_gap_from at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as gap_text
    from freshness
    left join recent on freshness.symbol = recent.symbol
    left join gaps on freshness.symbol = gaps.symbol
    left join verdicts on freshness.symbol = verdicts.symbol
    left join failures on freshness.symbol = failures.symbol
),

judged as (
    select
        *,
        case
            when is_late then 1
            when overdue_gaps > 0 then 2
            when missing_minutes > 0 then 3
            when cardinality(failing_checks) > 0 then 4
            -- The newest minutes still await the exchange's closed kline.
            when unverified_minutes > {{ var('health_patience_minutes') | int }} then 5
            when differing_days > 0 then 6
            when is_in_outage then 7
            when not is_trading then 10
            when not is_streamed and streamed_until is not null then 8
            when not is_streamed then 9
            else 11
        end as severity
    from gathered
),

ranked as (
    select
        *,
        row_number() over (
            order by
                severity asc, lag_seconds desc nulls first, missing_minutes desc,
                unverified_minutes desc, symbol asc
        ) as place
    from judged
),

described as (
    select
        *,
        severity <= 6 as needs_attention,
        case severity
            when 1 then 'late'
            when 2 then 'gap open'
            when 3 then 'minutes missing'
            when 4 then 'checks fail'
            when 5 then 'not verified'
            when 6 then 'sources differ'
            when 7 then 'exchange halted'
            when 8 then 'stream ended'
            when 9 then 'not streamed'
            when 10 then 'not trading'
            else 'ok'
        end as status,
        case severity
            when 1
                then concat(
                    'newest minute: ', coalesce(newest_text || ' UTC', 'none'),
                    '. Is the streamer running?'
                )
            when 2
                then concat(
                    overdue_gaps, ' gaps open too long, the oldest since ', gap_text,
                    ' UTC: see marts.health_gaps'
                )
            when 3
                then concat(
                    missing_minutes, ' minutes missing: see marts.health_coverage, load them with ',
                    'backfill_history'
                )
            when 4 then concat(array_to_string(failing_checks, ', '), ': see ops.quality_failures')
            when 5 then concat(unverified_minutes, ' minutes not confirmed by the exchange')
            when 6
                then concat(
                    differing_days, ' of the last 30 days differ between sources: ',
                    'see ops.discrepancies'
                )
            when 7 then 'trading is halted on the exchange: see ops.outages'
            when 8
                then concat(
                    'streamed until ', streamed_until, ', its market longer: was it removed from ',
                    'SYMBOLS, or did its stream fail?'
                )
            when 9 then 'history only: it was never streamed'
            when 10
                then coalesce(
                    'status on the exchange: ' || listing_status, 'not listed by the exchange'
                )
            else 'nothing to do'
        end as what_to_do
    from ranked
)

select
    place,
    symbol,
    status,
    what_to_do,
    needs_attention,
    market,
    is_trading,
    is_streamed,
    newest_minute,
    newest_verified_minute,
    lag_seconds,
    expected_minutes,
    present_minutes,
    verified_minutes,
    missing_minutes,
    unverified_minutes,
    open_gaps,
    overdue_gaps,
    oldest_gap_from,
    differing_days,
    last_compared_day,
    failing_checks
from described
order by place
