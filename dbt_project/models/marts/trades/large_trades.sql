-- depends_on: {{ ref('trade_sessions') }}
{{ config(
    materialized='from_trades',
    parent='trade_sessions',
    keeps_sealed=true,
    after_the_day=true,
) }}
{%- set quantile = var('large_trade_quantile') %}

with kept as (
    select distinct
        f.symbol,
        f.session,
        f.open_time,
        f.dataset
    from {{ ref('footprint_1m').render() }} as f
    {{ only_touched_sessions('f', 'open_time') }}
),

raw_trades as (
    select
        'agg_trades'::text as dataset,
        t.symbol,
        t.agg_trade_id as trade_id,
        t.trade_time,
        t.price,
        t.quantity,
        t.is_buyer_maker,
        t.last_trade_id - t.first_trade_id + 1 as trade_count
    from {{ source('market', 'agg_trades').render() }} as t
    {{ only_touched_sessions('t', 'trade_time', day='day') }}
    union all
    select
        'trades'::text as dataset,
        t.symbol,
        t.trade_id,
        t.trade_time,
        t.price,
        t.quantity,
        t.is_buyer_maker,
        1 as trade_count
    from {{ source('market', 'trades').render() }} as t
    {{ only_touched_sessions('t', 'trade_time', day='day') }}
    where {{ is_of_the_market('t') }}
),

trades as (
    select
        raw_trades.*,
        kept.session,
        raw_trades.price * raw_trades.quantity as notional
    from raw_trades
    inner join kept
        on
            raw_trades.symbol = kept.symbol
            and raw_trades.dataset = kept.dataset
            and date_bin('1 minute', raw_trades.trade_time, '2001-01-01 00:00:00+00')
            = kept.open_time
),

thresholds as (
    select
        symbol,
        session,
        percentile_disc({{ quantile }}) within group (order by notional) as threshold
    from trades
    group by symbol, session
)

select
    trades.symbol,
    trades.session,
    trades.trade_time,
    trades.trade_id,
    trades.price,
    trades.quantity,
    trades.notional,
    trades.trade_count,
    thresholds.threshold,
    trades.dataset,
    case when trades.is_buyer_maker then 'sell' else 'buy' end as side,
    now() as built_at
from trades
inner join thresholds
    on trades.symbol = thresholds.symbol and trades.session = thresholds.session
where trades.notional >= thresholds.threshold
