with source as (
    select * from {{ source('ops', 'coverage').render() }}
),

renamed as (
    select
        symbol,
        source,
        day,
        minutes
    from source
)

select * from renamed
