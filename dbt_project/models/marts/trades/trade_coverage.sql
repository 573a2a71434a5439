{{ config(materialized='view') }}

with candles as (
    select
        *,
        (open_time at time zone 'UTC')::date as session  -- noqa: RF04
    from {{ ref('candles_1d').render() }}
),

sessions as (
    select * from {{ ref('trade_sessions').render() }}
),

compared as (
    select
        candles.symbol,
        candles.session,
        sessions.datasets,
        sessions.volume,
        candles.volume as candle_volume,
        sessions.trade_count,
        candles.trade_count as candle_trade_count,
        sessions.first_trade_id,
        sessions.last_trade_id,
        case
            when sessions.symbol is null and candles.volume > 0 then 'no trades are stored'
            when not candles.is_complete then 'the day is not over, or minutes are missing'
            when sessions.symbol is null then null
            when sessions.volume <> candles.volume then 'the volume differs from the candles'
            when sessions.ask_volume <> candles.taker_buy_volume
                then 'the taker buy volume differs from the candles'
            when
                sessions.trade_count <> candles.trade_count
                and market.market_of(candles.symbol) = 'spot'
                then 'the number of trades differs from the candles'
        end as reason
    from candles
    left join sessions
        on candles.symbol = sessions.symbol and candles.session = sessions.session
    union all
    select
        sessions.symbol,
        sessions.session,
        sessions.datasets,
        sessions.volume,
        null as candle_volume,
        sessions.trade_count,
        null as candle_trade_count,
        sessions.first_trade_id,
        sessions.last_trade_id,
        'there are no candles to compare with' as reason
    from sessions
    where not exists (
        select 1 from candles
        where
            candles.symbol = sessions.symbol
            and candles.open_time = sessions.session::timestamp at time zone 'UTC'
    )
)

select
    compared.symbol,
    compared.session,
    case
        when compared.reason is null then 'whole'
        when compared.datasets is null and compared.candle_volume > 0 then 'none'
        else 'partial'
    end as kept,
    compared.reason is null as is_complete,
    compared.reason,
    compared.datasets,
    compared.volume,
    compared.candle_volume,
    compared.trade_count,
    compared.candle_trade_count,
    case
        when market.market_of(compared.symbol) = 'spot'
            then compared.last_trade_id - compared.first_trade_id + 1 - compared.trade_count
    end as missing_trades,
    (
        select
            coalesce(ops.minutes_in(range_agg(
                tstzrange(gaps.from_time, gaps.to_time)
                * tstzrange(
                    compared.session::timestamp at time zone 'UTC',
                    (compared.session + 1)::timestamp at time zone 'UTC'
                )
            )), 0)
        from {{ source('ops', 'gaps').render() }} as gaps
        where
            gaps.symbol = compared.symbol
            and gaps.dataset = any(string_to_array(compared.datasets, ','))
            and gaps.repaired_at is null
            and gaps.from_time < (compared.session + 1)::timestamp at time zone 'UTC'
            and gaps.to_time > compared.session::timestamp at time zone 'UTC'
    ) as gap_minutes,
    coalesce(
        (
            select bool_or(archived.dropped_at is not null)
            from {{ source('ops', 'archived_partitions').render() }} as archived
            where
                archived.day = compared.session
                and archived.dataset = any(string_to_array(compared.datasets, ','))
        ),
        false
    ) as is_archived
from compared
