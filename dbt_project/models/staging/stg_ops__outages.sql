with source as (
    select * from {{ source('ops', 'outages').render() }}
),

renamed as (
    select
        id as outage_id,
        market,
        symbol,
        minutes,
        cause,
        recorded_at
    from source
)

select * from renamed
