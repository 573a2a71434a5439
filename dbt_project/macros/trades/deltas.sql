{#-
  SQL: whether all trades of a candle are stored: volume, taker buy volume and, on spot, the number
  of trades are equal. On futures, candles count fills that no trade stream contains.
-#}
{% macro equals_candle(candle, volume, ask, trades) -%}
{{ candle }}.volume = {{ volume }} and {{ candle }}.taker_buy_volume = {{ ask }}
and ({{ candle }}.trade_count = {{ trades }} or market.market_of(of_symbol) <> 'spot')
{%- endmacro %}


{#-
  SQL: delta and cumulative delta by minute. cumulative_delta_1m and cumulative_delta() both read it,
  so that every timeframe agrees about every instant.

  The sum is known while the trades so far have the same volumes as the candles so far, and the
  candles lack only minutes of outages. After the newest candle of the session the sum continues
  with trades that cannot be compared with a candle yet.
-#}
{% macro session_deltas_function(schema) %}
create or replace function {{ schema }}.session_deltas(
    of_symbol text, from_session date, to_session date
) returns table (
    open_time timestamptz,
    session date,
    bid_volume numeric,
    ask_volume numeric,
    trade_count bigint,
    cumulative_delta numeric,
    kept text,
    missing_from timestamptz
)
language plpgsql stable
as $session_deltas$
begin
    return query
    with traded as (
        select
            f.open_time as minute,
            sum(f.bid_volume) as bid,
            sum(f.ask_volume) as ask,
            sum(f.trade_count)::bigint as trades
        from {{ schema }}.footprint_1m as f
        where
            f.symbol = of_symbol
            and f.open_time >= from_session::timestamp at time zone 'UTC'
            and f.open_time < (to_session + 1)::timestamp at time zone 'UTC'
        group by 1
    ),

    candles as (
        select * from market.candles_1m as k
        where
            k.symbol = of_symbol
            and k.open_time >= from_session::timestamp at time zone 'UTC'
            and k.open_time < (to_session + 1)::timestamp at time zone 'UTC'
    ),

    minutes as (
        select
            coalesce(c.open_time, t.minute) as minute,
            (coalesce(c.open_time, t.minute) at time zone 'UTC')::date as day,
            t.bid,
            t.ask,
            t.trades,
            c.open_time as candle_time,
            c.volume as candle_volume,
            c.taker_buy_volume as candle_ask,
            c.trade_count as candle_trades,
            case
                when t.minute is null and c.volume > 0 then 'none'
                when {{ equals_candle('c', 'coalesce(t.bid + t.ask, 0)', 'coalesce(t.ask, 0)', 'coalesce(t.trades, 0)') }}
                    then 'whole'
                else 'partial'
            end as kept
        from candles as c
        full join traded as t on c.open_time = t.minute
    ),

    placed as (
        select
            m.*,
            max(m.candle_time) over (partition by m.day) as last_candle,
            coalesce(
                lag(m.minute) over (partition by m.day order by m.minute) + interval '1 minute',
                m.day::timestamp at time zone 'UTC'
            ) as expected
        from minutes as m
    ),

    with_missing as (
        select
            p.*,
            case
                when p.candle_time is not null and p.minute > p.expected and not coalesce(
                    (
                        select range_agg(o.minutes) from ops.outages as o
                        where
                            o.market = market.market_of(of_symbol)
                            and (o.symbol = of_symbol or o.symbol is null)
                    ) @> tstzrange(p.expected, p.minute),
                    false
                )
                    then p.expected
            end as missing
        from placed as p
    ),

    summed as (
        select
            h.*,
            sum(coalesce(h.ask - h.bid, 0)) over so_far as total,
            bool_or(h.missing is not null) over so_far
            or sum(h.bid + h.ask) filter (where h.minute <= h.last_candle) over so_far
            is distinct from nullif(sum(h.candle_volume) over so_far, 0)
            or coalesce(sum(h.ask) filter (where h.minute <= h.last_candle) over so_far, 0)
            <> coalesce(sum(h.candle_ask) over so_far, 0)
            or market.market_of(of_symbol) = 'spot'
            and coalesce(sum(h.trades) filter (where h.minute <= h.last_candle) over so_far, 0)
            <> coalesce(sum(h.candle_trades) over so_far, 0) as lacks_some,
            lead(h.missing) over so_far as next_missing
        from with_missing as h
        window so_far as (partition by h.day order by h.minute)
    )

    select
        s.minute,
        s.day,
        s.bid,
        s.ask,
        s.trades,
        case when not s.lacks_some then s.total end,
        s.kept,
        s.next_missing
    from summed as s
    order by s.minute;
end
$session_deltas$;
comment on function {{ schema }}.session_deltas(text, date, date) is
'Internal: delta and cumulative delta by minute, read by cumulative_delta() and cumulative_delta_1m. missing_from is the start of missing minutes before the next row.'
{% endmacro %}


{#- SQL: cumulative volume delta by bar. It restarts each session, so bars are at most a day wide. -#}
{% macro cumulative_delta_function(schema) %}
{%- set known = ['1m'] -%}
{%- for name, timeframe in timeframes().items() if (timeframe['minutes'] or 43200) <= 1440 -%}
    {%- do known.append(name) -%}
{%- endfor %}
create or replace function {{ schema }}.cumulative_delta(
    of_symbol text, of_timeframe text, from_time timestamptz, to_time timestamptz
) returns table (
    open_time timestamptz,
    next_open_time timestamptz,
    session date,
    bid_volume numeric,
    ask_volume numeric,
    delta numeric,
    cumulative_delta numeric,
    kept text
)
language plpgsql stable
as $cumulative_delta$
declare
    width interval := {{ width_of_timeframe_sql() }};
    from_session date := (from_time at time zone 'UTC')::date;
    to_session date := ((to_time - interval '1 microsecond') at time zone 'UTC')::date;
begin
    {% call reject_timeframe_sql("width <= interval '1440 minutes'", known) -%}
    a cumulative delta, which restarts each session{% endcall %}
    return query
    with bars as (
        select
            {{ bar_of_sql('d.open_time') }} as bar_time,
            sum(d.bid_volume) as bid,
            sum(d.ask_volume) as ask,
            sum(d.trade_count) as trades,
            -- The last minute's value; null if later minutes of the bar are missing.
            (
                array_agg(
                    case
                        when d.missing_from < {{ bar_of_sql('d.open_time') }} + width then null
                        else d.cumulative_delta
                    end
                    order by d.open_time desc
                )
            )[1] as so_far
        from {{ schema }}.session_deltas(of_symbol, from_session, to_session) as d
        group by 1
    ),

    candles as (
        select * from {{ schema }}.candles as k
        where
            k.timeframe = of_timeframe and k.symbol = of_symbol
            and k.open_time >= from_session::timestamp at time zone 'UTC'
            and k.open_time < (to_session + 1)::timestamp at time zone 'UTC'
    )

    select
        coalesce(c.open_time, b.bar_time),
        coalesce(c.open_time, b.bar_time) + width,
        (coalesce(c.open_time, b.bar_time) at time zone 'UTC')::date,
        b.bid,
        b.ask,
        b.ask - b.bid,
        b.so_far,
        case
            when b.bid is null and c.volume > 0 then 'none'
            when
                c.is_complete
                and {{ equals_candle('c', 'coalesce(b.bid + b.ask, 0)', 'coalesce(b.ask, 0)', 'coalesce(b.trades, 0)') }}
                then 'whole'
            else 'partial'
        end
    from candles as c
    full join bars as b on c.open_time = b.bar_time
    where
        coalesce(c.open_time, b.bar_time) >= from_time
        and coalesce(c.open_time, b.bar_time) < to_time
    order by 1;
end
$cumulative_delta$;
comment on function {{ schema }}.cumulative_delta(text, text, timestamptz, timestamptz) is
'Delta and cumulative delta of the bars that open in a range. The sum restarts each session and is null from the first minute of the session whose trades are not all stored.'
{% endmacro %}
