{{ config(pre_hook="{{ make_first_minute() }}") }}

-- depends_on: {{ source('market', 'candles_1m') }}
with listings as (
    select * from {{ source('market', 'instruments').render() }}
),

-- The registry may record the next listing a day late, so the first stored minute counts.
relisted as (
    select
        former.symbol,
        former.listed_from,
        former.listed_to,
        {{ this.schema }}.first_minute(former.symbol, former.listed_to) as relisted_at
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
