with source as (
    select * from {{ source('ops', 'gaps').render() }}
),

renamed as (
    select
        id as gap_id,
        symbol,
        dataset,
        from_time,
        to_time,
        cause,
        opened_at,
        claimed_at,
        claimed_by,
        attempts,
        repaired_at,
        repaired_by,
        detail
    from source
)

select * from renamed
