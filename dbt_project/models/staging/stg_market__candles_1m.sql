with source as (
    -- render(): a view costs nothing, and must not stay empty after --empty
    select * from {{ source('market', 'candles_1m').render() }}
),

renamed as (
    select
        symbol,
        open_time,
        open_time + interval '1 minute' as next_open_time,
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
        1 as minute_count,
        true as is_complete,
        status,
        source,
        revision,
        updated_at as built_at
    from source
)

select * from renamed
