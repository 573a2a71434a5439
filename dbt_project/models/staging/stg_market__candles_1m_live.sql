{{ config(pre_hook="{{ make_live_minute() }}") }}

with stored as (
    select * from {{ source('market', 'candles_1m').render() }}
),

unstored as (
    select * from {{ source('market', 'live_candles').render() }}
),

renamed as (
    select
        symbol,
        open_time,
        open,
        high,
        low,
        close,
        volume,
        quote_volume,
        trade_count,
        taker_buy_volume,
        taker_buy_quote_volume,
        first_trade_id,
        last_trade_id,
        updated_at as built_at,
        1 as minute_count,
        true as is_complete,
        true as is_closed,
        open_time + interval '1 minute' as next_open_time
    from stored
    union all
    select
        unstored.symbol,
        unstored.open_time,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote_volume,
        candle.trade_count,
        candle.taker_buy_volume,
        candle.taker_buy_quote_volume,
        candle.first_trade_id,
        candle.last_trade_id,
        candle.built_at,
        candle.minute_count,
        candle.is_complete,
        candle.is_closed,
        candle.next_open_time
    from unstored
    cross join lateral {{ this.schema }}.live_bar_1m(unstored.symbol, unstored.open_time) as candle
)

select * from renamed
