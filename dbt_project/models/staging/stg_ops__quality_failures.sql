with source as (
    select * from {{ source('ops', 'quality_failures').render() }}
),

renamed as (
    select
        run_id,
        run_at,
        suite,
        check_name,
        severity,
        symbol,
        open_time,
        key,
        detail
    from source
)

select * from renamed
