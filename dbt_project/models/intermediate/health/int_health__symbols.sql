-- Who is looked after: symbols that have candles, or gaps of them. A probe each, no scan.
with known as (
    -- as the columns are collated, or no index would do for the probes
    select symbol collate "C" as symbol from ops.candle_symbols() as symbol
    union
    select symbol from {{ ref('stg_ops__gaps').render() }}
    where repaired_at is null and dataset = 'candles_1m'
),

listings as (
    select * from {{ ref('stg_market__instruments').render() }}
),

coverage as (
    select * from {{ ref('stg_ops__coverage').render() }}
),

judged as (
    select
        known.symbol,
        listing.status as listing_status,
        market.market_of(known.symbol) as market,
        coalesce(listing.listed_to is null and listing.status = 'TRADING', false) as is_trading,
        greatest(by_kline.day, by_stream.day) as streamed_until,
        -- Measured by its market, not by the clock: streams that have all died stay late. Without a
        -- day for long, where others of the market have one, it was taken off or died alone.
        coalesce(
            greatest(by_kline.day, by_stream.day)
            >= max(greatest(by_kline.day, by_stream.day)) over (
                partition by market.market_of(known.symbol)
            ) - {{ var('health_streamed_days') | int }},
            false
        ) as is_streamed
    from known
    left join lateral (
        select
            listings.status,
            listings.listed_to
        from listings
        where listings.symbol = known.symbol
        order by listings.listed_from desc
        limit 1
    ) as listing on true
    left join lateral (
        select coverage.day from coverage
        where coverage.symbol = known.symbol and coverage.source = 'kline'
        order by coverage.day desc
        limit 1
    ) as by_kline on true
    left join lateral (
        select coverage.day from coverage
        where coverage.symbol = known.symbol and coverage.source = 'stream'
        order by coverage.day desc
        limit 1
    ) as by_stream on true
)

select
    symbol,
    market,
    listing_status,
    is_trading,
    is_streamed,
    streamed_until
from judged
