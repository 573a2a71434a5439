with source as (
    select * from {{ source('ops', 'reconciliations').render() }}
),

renamed as (
    select
        symbol,
        day,
        verdict,
        is_complete,
        expected_minutes,
        stored_minutes,
        verified_minutes,
        outage_minutes,
        revised_minutes,
        live_minutes,
        live_differing,
        rest_minutes,
        rest_differing,
        daily_minutes,
        daily_differing,
        monthly_minutes,
        monthly_differing,
        reconciled_at
    from source
)

select * from renamed
