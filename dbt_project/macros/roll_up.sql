{#-
  A mart of bars, in one line: {{ roll_up('5m') }}.

  Rendered, it is the query for all bars. The materialization "rolled_up" runs it for a full
  build, and else for the touched bars alone.
-#}
{% macro roll_up(timeframe) %}
    {{ config(
        materialized='rolled_up',
        timeframe=timeframe,
        parent=model_of(timeframes()[timeframe]['parent']),
        tags=['days' if (timeframes()[timeframe]['minutes'] or 43200) >= 1440 else 'intraday'],
    ) }}
    {{ roll_up_query(
        timeframe,
        ref(model_of(timeframes()[timeframe]['parent'])),
        ref('stg_ops__outages'),
        ref('stg_market__relistings'),
    ) }}
{% endmacro %}


{#-
  SQL: bars of a timeframe from the bars of a finer one.

  A bar in which nobody traded gives no open, high, low or close: the exchange takes them from
  bars with trades alone. If all are empty, the bar is flat at the last one's price.

  Nothing crosses a listing: where a ticker was delisted and used again within a bar, the bar is
  the later listing's.

  Args:
      bars, outages, relistings: relations to read; of a live bar, "halted" and "listed_since" of
          make_live_bar tell what the last two would.
      touched: relation (symbol, from_time, to_time) of disjoint stretches that begin and end
          with bars; none rolls everything up.
      is_live: whether a bar may be open (is_closed), complete only when it no longer is, and
          without an amount in quote asset that a fold cannot know: then neither has the sum.
-#}
{% macro roll_up_query(timeframe, bars, outages=none, relistings=none, touched=none, is_live=false) %}
{%- set bar = 'tstzrange(spans.open_time, spans.next_open_time)' -%}
{%- set outage = 'halted' if is_live else outage_minutes(bar) -%}
{%- set is_of_the_listing = (
    'finer.next_open_time > listed_since' if is_live
    else is_of_the_bars_listing(timeframe, 'finer', 'relistings')
) -%}
with finer as {{ 'materialized' if is_live else 'not materialized' }} (
    select * from {{ bars }}{{ ' as bars' if is_live }}
),
{%- if not is_live %}

outages as not materialized (
    select * from {{ outages }}
),

relistings as materialized (
    select * from {{ relistings }}
),
{%- endif %}

rolled_up as (
    select
        finer.symbol,
        {{ bar_open(timeframe, 'finer.open_time') }} as open_time,
        (array_agg(finer.open order by finer.open_time)
            filter (where finer.trade_count > 0))[1] as open,
        max(finer.high) filter (where finer.trade_count > 0) as high,
        min(finer.low) filter (where finer.trade_count > 0) as low,
        (array_agg(finer.close order by finer.open_time)
            filter (where finer.trade_count > 0))
            [count(*) filter (where finer.trade_count > 0)] as close,
        (array_agg(finer.close order by finer.open_time))[count(*)] as last_price,
        sum(finer.volume) as volume,
        sum(finer.quote_volume) as quote_volume,
        sum(finer.trade_count)::bigint as trade_count,
        sum(finer.taker_buy_volume) as taker_buy_volume,
        sum(finer.taker_buy_quote_volume) as taker_buy_quote_volume,
        (array_agg(finer.first_trade_id order by finer.open_time)
            filter (where finer.trade_count > 0))[1] as first_trade_id,
        (array_agg(finer.last_trade_id order by finer.open_time)
            filter (where finer.trade_count > 0))
            [count(*) filter (where finer.trade_count > 0)] as last_trade_id,
        sum(finer.minute_count)::integer as minute_count
        {%- if is_live %},
        count(finer.quote_volume) = count(*) as has_quote_volume,
        count(finer.taker_buy_quote_volume) = count(*) as has_taker_buy_quote_volume,
        bool_and(finer.is_complete) as are_complete,
        bool_and(finer.is_closed) as are_closed
        {%- endif %}
    from finer
    {%- if touched is not none %}
    inner join {{ touched }} as touched
        on
            finer.symbol = touched.symbol
            and finer.open_time >= touched.from_time
            and finer.open_time < touched.to_time
            {{ in_reach('finer') }}
    {%- endif %}
    where {{ is_of_the_listing }}
    group by 1, 2
),

spans as (
    select
        *,
        {{ next_bar_open(timeframe, 'open_time') }} as next_open_time
    from rolled_up
)

select
    spans.symbol,
    spans.open_time,
    spans.next_open_time,
    coalesce(spans.open, spans.last_price) as open,
    coalesce(spans.high, spans.last_price) as high,
    coalesce(spans.low, spans.last_price) as low,
    coalesce(spans.close, spans.last_price) as close,
    spans.volume,
    {% if is_live -%}
    case when spans.has_quote_volume then spans.quote_volume end as quote_volume,
    spans.trade_count,
    spans.taker_buy_volume,
    case when spans.has_taker_buy_quote_volume then spans.taker_buy_quote_volume end
        as taker_buy_quote_volume,
    {%- else -%}
    spans.quote_volume,
    spans.trade_count,
    spans.taker_buy_volume,
    spans.taker_buy_quote_volume,
    {%- endif %}
    spans.first_trade_id,
    spans.last_trade_id,
    spans.minute_count,
    case
        when
            spans.minute_count
            = extract(epoch from spans.next_open_time - spans.open_time) / 60
            {%- if is_live %}
            and spans.are_complete
            {%- endif %}
            then true
        -- Minutes are missing. Only outages can excuse that, and they are rare; one without an end
        -- excuses none to come.
        when spans.next_open_time > now() or {{ outage }} is null then false
        else {{ outage }} + (
            select coalesce(range_agg(tstzrange(finer.open_time, finer.next_open_time)), '{}')
            from finer
            where
                finer.symbol = spans.symbol
                and finer.open_time >= spans.open_time
                and finer.open_time < spans.next_open_time
                {{ in_reach('finer') if touched is not none }}
                and finer.is_complete
                and {{ is_of_the_listing }}
        ) @> {{ bar }}
    end as is_complete,
    {%- if is_live %}
    spans.are_closed and spans.next_open_time <= now() as is_closed,
    {%- endif %}
    now() as built_at
from spans
{% endmacro %}


{#-
  SQL: whether a finer bar is of the listing that a bar is of, the last one in it. One that lies
  before the first minute of a later listing within the same bar is not. Of nearly all symbols no
  ticker was used again: they are let through first, since a join would cost every row something.
  What lies before is told by arrays, since no parallel worker may read the CTE they come from.
-#}
{% macro is_of_the_bars_listing(timeframe, finer, relistings) -%}
(
        {{ finer }}.symbol <> all (array(select relisted.symbol from {{ relistings }} as relisted))
        or not (
            array(
                select range_agg(tstzrange({{ bar_open(timeframe, 'relisted.relisted_at') }}, relisted.relisted_at))
                from {{ relistings }} as relisted
                group by relisted.symbol
                order by relisted.symbol
            )
        )[
            array_position(
                array(select distinct relisted.symbol from {{ relistings }} as relisted order by relisted.symbol),
                {{ finer }}.symbol
            )
        ] @> tstzrange({{ finer }}.open_time, {{ finer }}.next_open_time)
    )
{%- endmacro %}


{#- SQL: the outages that touch a bar of "spans", as one multirange; null where there are none. -#}
{% macro outage_minutes(bar) -%}
(
            select range_agg(outages.minutes) from outages
            where
                outages.market = market.market_of(spans.symbol)
                and (outages.symbol = spans.symbol or outages.symbol is null)
                and outages.minutes && {{ bar }}
        )
{%- endmacro %}


{#-
  The bars of every timeframe in one view; render() as in the staging views.

  Args:
      is_live: whether of the live views rather than of the marts.
-#}
{% macro union_of_bars(is_live=false) %}
    {{ config(materialized='view', tags=['views']) }}
{%- for timeframe in ['1m'] + timeframes().keys() | list %}
select
    '{{ timeframe }}'::text collate "C" as timeframe,
    symbol,
    open_time,
    next_open_time,
    open,
    high,
    low,
    close,
    volume,
    quote_volume,
    trade_count,
    taker_buy_volume,
    taker_buy_quote_volume,
    first_trade_id,
    last_trade_id,
    minute_count,
    is_complete,
    {%- if is_live %}
    is_closed,
    {%- endif %}
    built_at
from {{ ref(model_of(timeframe) ~ ('_live' if is_live else '')).render() }}
{% if not loop.last %}union all{% endif %}
{%- endfor %}
{% endmacro %}
