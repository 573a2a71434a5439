with listings as (
    select * from {{ ref('stg_market__instruments').render() }}
),

freshness as (
    select * from {{ ref('health_freshness').render() }}
),

latest as (
    select distinct on (symbol) *
    from listings
    order by symbol asc, listed_from desc
)

select
    freshness.symbol,
    freshness.market,
    latest.exchange_symbol,
    latest.base_asset,
    latest.quote_asset,
    freshness.listing_status,
    freshness.is_trading,
    freshness.is_streamed,
    latest.listed_from,
    latest.listed_to,
    latest.tick_size::double precision as tick_size,
    latest.step_size::double precision as step_size,
    freshness.newest_minute,
    freshness.lag_seconds::double precision as lag_seconds
from freshness
left join latest on freshness.symbol = latest.symbol
