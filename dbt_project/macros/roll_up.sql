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
  bars with trades alone. If all are empty, the bar is flat at the first one's price.

  Nothing crosses a listing: where a ticker was delisted and used again within a bar, the bar is
  the later listing's.

  Args:
      bars, outages, relistings: relations to read.
      touched: relation (symbol, from_time, to_time) of disjoint stretches that begin and end
          with bars; none rolls everything up.
-#}
{% macro roll_up_query(timeframe, bars, outages, relistings, touched=none) %}
{%- set bar = 'tstzrange(spans.open_time, spans.next_open_time)' -%}
with finer as not materialized (
    select * from {{ bars }}
),

outages as not materialized (
    select * from {{ outages }}
),

relistings as not materialized (
    select * from {{ relistings }}
),

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
        (array_agg(finer.close order by finer.open_time))[1] as silent_price,
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
    from finer
    {%- if touched is not none %}
    inner join {{ touched }} as touched
        on
            finer.symbol = touched.symbol
            and finer.open_time >= touched.from_time
            and finer.open_time < touched.to_time
    {%- endif %}
    where {{ is_of_the_bars_listing(timeframe, 'finer', 'relistings') }}
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
    coalesce(spans.open, spans.silent_price) as open,
    coalesce(spans.high, spans.silent_price) as high,
    coalesce(spans.low, spans.silent_price) as low,
    coalesce(spans.close, spans.silent_price) as close,
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
            then true
        -- Minutes are missing. Only outages can excuse that, and they are rare.
        when {{ outage_minutes(bar) }} is null then false
        else {{ outage_minutes(bar) }} + (
            select coalesce(range_agg(tstzrange(finer.open_time, finer.next_open_time)), '{}')
            from finer
            where
                finer.symbol = spans.symbol
                and finer.open_time >= spans.open_time
                and finer.open_time < spans.next_open_time
                and finer.is_complete
                and {{ is_of_the_bars_listing(timeframe, 'finer', 'relistings') }}
        ) @> {{ bar }}
    end as is_complete,
    now() as built_at
from spans
{% endmacro %}


{#-
  SQL: whether a finer bar is of the listing that a bar is of, the last one in it. One that lies
  before the first minute of a later listing within the same bar is not.
-#}
{% macro is_of_the_bars_listing(timeframe, finer, relistings) -%}
not exists (
        select 1 from {{ relistings }} as relisting
        where
            relisting.symbol = {{ finer }}.symbol
            and relisting.relisted_at >= {{ finer }}.next_open_time
            and relisting.relisted_at < {{ next_bar_open(timeframe, bar_open(timeframe, finer ~ '.open_time')) }}
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


{#- The bars of every timeframe in one view; render() as in the staging views. -#}
{% macro union_of_bars() %}
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
    built_at
from {{ ref(model_of(timeframe)).render() }}
{% if not loop.last %}union all{% endif %}
{%- endfor %}
{% endmacro %}
