{{ config(
    materialized='from_trades',
    keeps_sealed=true,
    functions=[
        'price_step_function',
        'footprint_function',
        'session_deltas_function',
        'cumulative_delta_function',
    ],
) }}

with raw_trades as (
    select
        'agg_trades'::text as dataset,
        t.symbol,
        t.day as session,  -- noqa: RF04
        t.trade_time,
        t.price,
        t.quantity,
        t.is_buyer_maker,
        t.first_trade_id,
        t.last_trade_id
    from {{ source('market', 'agg_trades').render() }} as t
    {{ only_touched_sessions('t', 'trade_time', day='day') }}
    union all
    select
        'trades'::text as dataset,
        t.symbol,
        t.day as session,  -- noqa: RF04
        t.trade_time,
        t.price,
        t.quantity,
        t.is_buyer_maker,
        t.trade_id as first_trade_id,
        t.trade_id as last_trade_id
    from {{ source('market', 'trades').render() }} as t
    {{ only_touched_sessions('t', 'trade_time', day='day') }}
    where {{ is_of_the_market('t') }}
),

by_price as (
    select
        dataset,
        symbol,
        session,
        price,
        date_bin('1 minute', trade_time, '2001-01-01 00:00:00+00') as open_time,
        coalesce(sum(quantity) filter (where is_buyer_maker), 0) as bid_volume,
        coalesce(sum(quantity) filter (where not is_buyer_maker), 0) as ask_volume,
        sum(last_trade_id - first_trade_id + 1)::bigint as trade_count,
        min(first_trade_id) as first_trade_id,
        max(last_trade_id) as last_trade_id
    from raw_trades
    group by dataset, symbol, session, open_time, price
),

by_minute as (
    select
        dataset,
        symbol,
        open_time,
        max(price) as high,
        sum(bid_volume + ask_volume) as volume
    from by_price
    group by dataset, symbol, open_time
),

-- If both datasets have trades of a minute, the one with more volume counts. The other may miss
-- trades.
chosen as (
    select distinct on (symbol, open_time)
        symbol,
        open_time,
        dataset,
        high
    from by_minute
    order by symbol asc, open_time asc, volume desc, dataset asc
),

listed as (
    select
        chosen.*,
        coalesce(listing.tick_size, 0.00000001) as tick_size
    from chosen
    left join lateral (
        select instruments.tick_size
        from {{ ref('stg_market__instruments').render() }} as instruments
        where instruments.symbol = chosen.symbol
        order by
            instruments.listed_from > chosen.open_time,
            abs(extract(epoch from instruments.listed_from - chosen.open_time))
        limit 1
    ) as listing on true
),

stepped as materialized (
    select
        *,
        {{ this.schema }}.price_step(high, tick_size) as price_step
    from listed
),

in_buckets as (
    select
        by_price.*,
        stepped.price_step,
        div(by_price.price, stepped.price_step) * stepped.price_step as price_low
    from by_price
    inner join stepped
        on
            by_price.symbol = stepped.symbol
            and by_price.open_time = stepped.open_time
            and by_price.dataset = stepped.dataset
)

select
    symbol,
    session,
    open_time,
    price_low,
    price_step,
    dataset,
    sum(bid_volume) as bid_volume,
    sum(ask_volume) as ask_volume,
    sum(trade_count)::bigint as trade_count,
    min(first_trade_id) as first_trade_id,
    max(last_trade_id) as last_trade_id,
    now() as built_at
from in_buckets
group by symbol, session, open_time, price_low, price_step, dataset
