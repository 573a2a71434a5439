with source as (
    select * from {{ source('market', 'instruments').render() }}
),

renamed as (
    select
        symbol,
        listed_from,
        listed_to,
        market,
        exchange_symbol,
        base_asset,
        quote_asset,
        status,
        tick_size,
        step_size,
        filters,
        quote_volume_is_exact,
        seen_at
    from source
)

select * from renamed
