with listings as (
    select * from {{ source('market', 'instruments').render() }}
),

minutes as (
    select * from {{ source('market', 'candles_1m').render() }}
),

-- The registry may learn of the next listing a day late; its first minute cannot err.
relisted as (
    select
        former.symbol,
        former.listed_from,
        former.listed_to,
        (
            select minutes.open_time
            from minutes
            where
                minutes.symbol = former.symbol
                and minutes.open_time
                >= date_bin('1 minute', former.listed_to, '2001-01-01 00:00:00+00')
            order by minutes.open_time
            limit 1
        ) as relisted_at
    from listings as former
    where
        former.listed_to is not null
        and exists (
            select 1 from listings as later
            where later.symbol = former.symbol and later.listed_from >= former.listed_to
        )
),

renamed as (
    select * from relisted
    where relisted_at is not null
)

select * from renamed
