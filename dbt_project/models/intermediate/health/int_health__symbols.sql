-- Symbols with candles or with open gaps of candles. One index probe each, no scan.
with known as (
    -- The collation of the columns; with another one the probes could not use the index.
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
        -- Compared with the market's newest streamed day, not with the clock: if all streams died,
        -- their symbols stay late. If only this one ended, it was removed or died alone.
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
