{#-
  A mart of bars in one line: {{ roll_up('5m') }}.

  The model's own SQL selects all bars, for a full build. The materialization "rolled_up" restricts
  it to the touched bars.
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
  Columns that all bars share, with their PostgreSQL types: times, nine values, trade ids and
  minute count. The views, functions and queries below take their column lists from here.
-#}
{% macro bar_columns() %}
    {% do return({
        'open_time': 'timestamp with time zone',
        'next_open_time': 'timestamp with time zone',
        'open': 'numeric',
        'high': 'numeric',
        'low': 'numeric',
        'close': 'numeric',
        'volume': 'numeric',
        'quote_volume': 'numeric',
        'trade_count': 'bigint',
        'taker_buy_volume': 'numeric',
        'taker_buy_quote_volume': 'numeric',
        'first_trade_id': 'bigint',
        'last_trade_id': 'bigint',
        'minute_count': 'integer',
    }) %}
{% endmacro %}

{#- SQL: the columns of bar_columns(), optionally qualified and without some. -#}
{% macro select_bar_columns(relation=none, without=[]) -%}
    {%- for name in bar_columns() if name not in without %}
    {{ relation ~ '.' if relation }}{{ name }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#-
  SQL: rolls finer bars up into the bars of a timeframe. The only roll-up of the project: marts and
  live bars use it.

  As on the exchange, open, high, low and close come only from finer bars with trades. If there are
  none, the bar is flat at the close of the last finer bar.

  If a ticker was delisted and used again within a bar, the bar contains only the later listing.

  Args:
      bars, outages, relistings: relations to read. A live bar has no use for the last two: the
          variables outage_minutes and listed_since of make_live_bar() take their place.
      touched: relation (symbol, from_time, to_time) of disjoint ranges of whole bars; none rolls
          up everything.
      is_live: the bar may be open (is_closed), and is complete only when closed. A candle that is
          aggregated from trades may lack its quote volume; then the bar's quote volume is null.
-#}
{% macro roll_up_query(timeframe, bars, outages=none, relistings=none, touched=none, is_live=false) %}
{%- set bar = 'tstzrange(spans.open_time, spans.next_open_time)' -%}
{%- set outage = 'outage_minutes' if is_live else outages_within(bar) -%}
{%- set is_of_listing = (
    'finer.next_open_time > listed_since' if is_live
    else is_of_last_listing(timeframe, 'finer', 'relistings')
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
        {{ sum_of_quotes('finer.quote_volume', is_live) }} as quote_volume,
        sum(finer.trade_count)::bigint as trade_count,
        sum(finer.taker_buy_volume) as taker_buy_volume,
        {{ sum_of_quotes('finer.taker_buy_quote_volume', is_live) }} as taker_buy_quote_volume,
        (array_agg(finer.first_trade_id order by finer.open_time)
            filter (where finer.trade_count > 0))[1] as first_trade_id,
        (array_agg(finer.last_trade_id order by finer.open_time)
            filter (where finer.trade_count > 0))
            [count(*) filter (where finer.trade_count > 0)] as last_trade_id,
        sum(finer.minute_count)::integer as minute_count
        {%- if is_live %},
        bool_and(finer.is_complete) as all_complete,
        bool_and(finer.is_closed) as all_closed
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
    where {{ is_of_listing }}
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
    spans.quote_volume,
    spans.trade_count,
    spans.taker_buy_volume,
    spans.taker_buy_quote_volume,
    spans.first_trade_id,
    spans.last_trade_id,
    spans.minute_count,
    case
        when
            spans.minute_count
            = extract(epoch from spans.next_open_time - spans.open_time) / 60
            {%- if is_live %}
            and spans.all_complete
            {%- endif %}
            then true
        -- Minutes are missing. Only outages can excuse that, and they are rare. An outage without
        -- an end does not excuse future minutes.
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
                and {{ is_of_listing }}
        ) @> {{ bar }}
    end as is_complete,
    {%- if is_live %}
    spans.all_closed and spans.next_open_time <= now() as is_closed,
    {%- endif %}
    now() as built_at
from spans
{% endmacro %}


{#- SQL: sum of a quote amount; for a live bar null unless every finer bar has one. -#}
{% macro sum_of_quotes(column, is_live) -%}
{%- if is_live -%}
case when count({{ column }}) = count(*) then sum({{ column }}) end
{%- else -%}
sum({{ column }})
{%- endif -%}
{%- endmacro %}


{#- SQL: the outages that overlap a bar of "spans", as one multirange; null if there are none. -#}
{% macro outages_within(bar) -%}
(
            select range_agg(outages.minutes) from outages
            where
                outages.market = market.market_of(spans.symbol)
                and (outages.symbol = spans.symbol or outages.symbol is null)
                and outages.minutes && {{ bar }}
        )
{%- endmacro %}


{#-
  A view of the bars of every timeframe. Like the staging views it uses render(), so that --empty
  does not leave an empty view behind.

  Args:
      is_live: reads the live views instead of the marts.
-#}
{% macro union_of_bars(is_live=false) %}
    {{ config(materialized='view', tags=['views']) }}
{%- for timeframe in ['1m'] + timeframes().keys() | list %}
select
    '{{ timeframe }}'::text collate "C" as timeframe,
    symbol,
    {{- select_bar_columns() }},
    is_complete,
    {%- if is_live %}
    is_closed,
    {%- endif %}
    built_at
from {{ ref(model_of(timeframe) ~ ('_live' if is_live else '')).render() }}
{% if not loop.last %}union all{% endif %}
{%- endfor %}
{% endmacro %}
