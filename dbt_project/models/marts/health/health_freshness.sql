with symbols as (
    select * from {{ ref('int_health__symbols').render() }}
),

-- Read by two index probes per symbol, never in full.
minutes as not materialized (
    select * from {{ ref('stg_market__candles_1m').render() }}
),

outages as not materialized (
    select * from {{ ref('stg_ops__outages').render() }}
),

probed as (
    select
        symbols.*,
        newest.open_time as newest_minute,
        verified.open_time as newest_verified_minute
    from symbols
    left join lateral (
        select minutes.open_time from minutes
        where minutes.symbol = symbols.symbol and minutes.open_time <= now()
        order by minutes.open_time desc
        limit 1
    ) as newest on true
    -- Limited to a day before the newest, so that unverified minutes never cause a full scan.
    left join lateral (
        select minutes.open_time from minutes
        where
            minutes.symbol = symbols.symbol
            and minutes.status = 'verified'
            and minutes.open_time > newest.open_time - interval '1 day'
        order by minutes.open_time desc
        limit 1
    ) as verified on true
),

measured as (
    select
        *,
        extract(epoch from now() - newest_minute - interval '1 minute') as lag_seconds,
        extract(epoch from now() - newest_verified_minute - interval '1 minute')
            as verified_lag_seconds,
        coalesce(
            (
                select range_agg(outages.minutes) from outages
                where
                    outages.market = probed.market
                    and (outages.symbol = probed.symbol or outages.symbol is null)
            ) @> tstzrange(
                newest_minute + interval '1 minute',
                greatest(
                    now() - interval '{{ var("health_patience_minutes") | int }} minutes',
                    newest_minute + interval '2 minutes'
                )
            ),
            false
        ) as is_in_outage
    from probed
)

select
    symbol,
    market,
    listing_status,
    is_trading,
    is_streamed,
    streamed_until,
    is_in_outage,
    newest_minute,
    newest_verified_minute,
    round(lag_seconds, 3) as lag_seconds,
    round(verified_lag_seconds, 3) as verified_lag_seconds,
    coalesce(
        is_trading
        and is_streamed
        and not is_in_outage
        and (
            newest_minute is null
            or lag_seconds > {{ 60 * (var("health_late_minutes") | int) }}
        ),
        false
    ) as is_late
from measured
