with source as (
    select * from {{ source('ops', 'quality_results').render() }}
),

renamed as (
    select
        id as result_id,
        run_id,
        run_at,
        suite,
        check_name,
        symbol,
        success,
        severity,
        failing_count
    from source
)

select * from renamed
