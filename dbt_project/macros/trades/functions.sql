{#-
  SQL: the width of the price buckets of a minute, from its highest price.

  Widths are 1, 2, 10, 20, 100 … ticks. Each divides the next, so narrow buckets add up to wide ones.
  The width is the widest within price_step_bps basis points of the price, and at least one tick. It
  depends on nothing else, so a late trade does not change the buckets of other minutes.
-#}
{% macro price_step_function(schema) %}
{%- set ticks = [] -%}
{%- for exponent in range(17) -%}
    {%- do ticks.append(10 ** exponent) -%}
    {%- do ticks.append(2 * 10 ** exponent) -%}
{%- endfor -%}
create or replace function {{ schema }}.price_step(price numeric, tick_size numeric) returns numeric
language sql immutable parallel safe
return trim_scale(tick_size * (array{{ ticks }})[
    greatest(
        width_bucket(
            price * {{ var('price_step_bps') }} / (tick_size * 10000), array{{ ticks }}::numeric []
        ),
        1
    )
]);
comment on function {{ schema }}.price_step(numeric, numeric) is
'Width of price buckets: the widest of 1, 2, 10, 20, 100 … ticks within {{ var("price_step_bps") }} basis points of the price, at least one tick.'
{% endmacro %}


{#-
  SQL: point of control and value area of a session, from the volumes of all its buckets in order of
  price, empty ones included.

  The bucket with the greatest volume is the point of control; among equals the one nearest the
  middle of the range, then the lower one. The area grows from there by two buckets at a time, the
  two above or the two below, whichever have more volume (the upper two if equal, a single bucket at
  the edge), until it contains the share.
-#}
{% macro value_area_function(schema) %}
create or replace function {{ schema }}.value_area(
    volumes numeric [], share numeric, out control integer, out lowest integer, out highest integer
)
language plpgsql immutable parallel safe
as $value_area$
declare
    n integer := cardinality(volumes);
    wanted numeric;
    held numeric;
    above numeric;
    below numeric;
begin
    select sum(v.volume) * share into wanted from unnest(volumes) as v (volume);
    select v.place into control
    from unnest(volumes) with ordinality as v (volume, place)
    order by v.volume desc, abs(2 * v.place - n - 1), v.place
    limit 1;
    lowest := control;
    highest := control;
    held := volumes[control];
    while held < wanted loop
        above := volumes[highest + 1] + coalesce(volumes[highest + 2], 0);
        below := volumes[lowest - 1] + coalesce(volumes[lowest - 2], 0);
        if below is null or above >= below then
            highest := least(highest + 2, n);
            held := held + above;
        else
            lowest := greatest(lowest - 2, 1);
            held := held + below;
        end if;
    end loop;
end
$value_area$;
comment on function {{ schema }}.value_area(numeric [], numeric) is
'Positions (from 1) of the point of control and of the lowest and highest bucket of the value area, given the volumes of all buckets in order of price.'
{% endmacro %}


{#- SQL: the width of a timeframe by its name; null for a month and for unknown names. -#}
{% macro width_of_timeframe_sql() -%}
    case of_timeframe
        when '1m' then interval '1 minute'
        {%- for name, timeframe in timeframes().items() if timeframe['minutes'] %}
        when '{{ name }}' then interval '{{ timeframe["minutes"] }} minutes'
        {%- endfor %}
    end
{%- endmacro %}

{% macro reject_timeframe_sql(is_known, known) -%}
    if not coalesce({{ is_known }}, false) then
        raise exception 'unknown timeframe % for {{ caller() }}', coalesce(of_timeframe, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Use one of {{ known | join(", ") }}.';
    end if;
{%- endmacro %}

{% macro bar_of_sql(moment) -%}
    case
        when width is null then date_trunc('month', {{ moment }}, 'UTC')
        else date_bin(width, {{ moment }}, '2001-01-01 00:00:00+00')
    end
{%- endmacro %}


{#-
  SQL: bid and ask volume by bar and price bucket.

  A bar whose trades are not stored has one row without a price, unlike a bar without
  trades. All rows have the widest bucket width of the requested minutes.
-#}
{% macro footprint_function(schema) %}
create or replace function {{ schema }}.footprint(
    of_symbol text, of_timeframe text, from_time timestamptz, to_time timestamptz
) returns table (
    open_time timestamptz,
    next_open_time timestamptz,
    price_low numeric,
    price_high numeric,
    bid_volume numeric,
    ask_volume numeric,
    volume numeric,
    delta numeric,
    trade_count bigint,
    imbalance numeric,
    bid_ratio numeric,
    ask_ratio numeric,
    is_bid_imbalance boolean,
    is_ask_imbalance boolean,
    kept text
)
language plpgsql stable
as $footprint$
declare
    width interval := {{ width_of_timeframe_sql() }};
    last_bar timestamptz;
    end_time timestamptz;
begin
    {% call reject_timeframe_sql("of_timeframe = '1M' or width is not null", ['1m'] + timeframes().keys() | list) -%}
    a footprint{% endcall %}
    -- All bars that open within the range, up to their end.
    last_bar := {{ bar_of_sql("to_time - interval '1 microsecond'") }};
    end_time := case
        when width is null then (last_bar at time zone 'UTC' + interval '1 month') at time zone 'UTC'
        else last_bar + width
    end;
    return query
    with minutes as materialized (
        select f.*, {{ bar_of_sql('f.open_time') }} as bar_time
        from {{ schema }}.footprint_1m as f
        where
            f.symbol = of_symbol
            and f.open_time >= from_time and f.open_time < end_time
            and {{ bar_of_sql('f.open_time') }} >= from_time
    ),

    widest as (
        select max(m.price_step) as step from minutes as m
    ),

    buckets as (
        select
            m.bar_time,
            div(m.price_low, w.step) * w.step as low,
            w.step,
            sum(m.bid_volume) as bid,
            sum(m.ask_volume) as ask,
            sum(m.trade_count)::bigint as trades
        from minutes as m
        cross join widest as w
        group by 1, 2, 3
    ),

    held as (
        select b.bar_time, sum(b.bid + b.ask) as volume, sum(b.ask) as ask, sum(b.trades) as trades
        from buckets as b
        group by 1
    ),

    bars as (
        select
            coalesce(c.open_time, h.bar_time) as bar_time,
            case
                when c.volume = 0 and h.volume is null then null
                when h.volume is null then 'none'
                when c.is_complete and {{ equals_candle('c', 'h.volume', 'h.ask', 'h.trades') }}
                    then 'whole'
                else 'partial'
            end as kept
        from (
            select * from {{ schema }}.candles as k
            where
                k.timeframe = of_timeframe and k.symbol = of_symbol
                and k.open_time >= from_time and k.open_time < end_time
        ) as c
        full join held as h on c.open_time = h.bar_time
    )

    select
        r.bar_time,
        case
            when width is null
                then (r.bar_time at time zone 'UTC' + interval '1 month') at time zone 'UTC'
            else r.bar_time + width
        end,
        b.low,
        b.low + b.step,
        b.bid,
        b.ask,
        b.bid + b.ask,
        b.ask - b.bid,
        b.trades,
        (b.ask - b.bid) / (b.bid + b.ask),
        b.bid / nullif(above.ask, 0),
        b.ask / nullif(below.bid, 0),
        case
            when b.low is not null
                then coalesce(b.bid >= {{ var('imbalance_ratio') }} * nullif(above.ask, 0), false)
        end,
        case
            when b.low is not null
                then coalesce(b.ask >= {{ var('imbalance_ratio') }} * nullif(below.bid, 0), false)
        end,
        r.kept
    from bars as r
    left join buckets as b on r.bar_time = b.bar_time
    left join buckets as above on b.bar_time = above.bar_time and above.low = b.low + b.step
    left join buckets as below on b.bar_time = below.bar_time and below.low = b.low - b.step
    where r.kept is not null
    order by r.bar_time, b.low;
end
$footprint$;
comment on function {{ schema }}.footprint(text, text, timestamptz, timestamptz) is
'Bid and ask volume by price bucket for the bars of any timeframe that open in a range. kept says how much of the bar''s trades is stored: whole, partial or none (one row without prices).'
{% endmacro %}
