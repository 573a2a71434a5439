{#-
  A view of bars that is never behind the minutes, in one line: {{ live('5m') }}.

  The mart's bars, but those whose minutes have changed since the mart's last build, or have one
  that is not stored yet, are rolled up anew when they are read. Which ones, the change log tells
  for repairs of any age; a mart without a cursor of this cluster has nothing but such bars.

  A bar is rolled up by a function of its own, so that its plan knows the bar's bounds: a month of
  minutes is one partition, and a join would plan all of them. It reads minutes for an hour, hours
  for a day, and days beyond, each of them live in turn: a month is not 43,200 minutes.
-#}
{% macro live(timeframe) %}
    {%- set mart = ref(model_of(timeframe)).render() -%}
    {{ config(
        materialized='view',
        tags=['views'],
        pre_hook="{{ make_live_bar('" ~ timeframe ~ "') }}",
    ) }}
    -- depends_on: {{ ref(live_finer(timeframe)) }}
    -- depends_on: {{ ref('stg_ops__outages') }}
select
    bars.symbol,
    bars.open_time,
    bars.next_open_time,
    bars.open,
    bars.high,
    bars.low,
    bars.close,
    bars.volume,
    bars.quote_volume,
    bars.trade_count,
    bars.taker_buy_volume,
    bars.taker_buy_quote_volume,
    bars.first_trade_id,
    bars.last_trade_id,
    bars.minute_count,
    -- a stale one may have its last minute, which is open yet
    bars.is_complete and bars.is_closed as is_complete,
    bars.is_closed,
    bars.built_at
from (
    select
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
        next_open_time <= now() as is_closed,
        built_at,
        true as is_of_the_mart
    from {{ mart }}
    union all
    select
        -- the symbol and time asked for reach these, before anything is rolled up
        stale_bars.symbol,
        stale_bars.open_time,
        rolled_up.next_open_time,
        rolled_up.open,
        rolled_up.high,
        rolled_up.low,
        rolled_up.close,
        rolled_up.volume,
        rolled_up.quote_volume,
        rolled_up.trade_count,
        rolled_up.taker_buy_volume,
        rolled_up.taker_buy_quote_volume,
        rolled_up.first_trade_id,
        rolled_up.last_trade_id,
        rolled_up.minute_count,
        rolled_up.is_complete,
        rolled_up.is_closed,
        rolled_up.built_at,
        false as is_of_the_mart
    from (
        select distinct
            stretches.symbol,
            opens.open_time
        from ({{ stale_stretches(timeframe) }}) as stretches
        cross join lateral {{ bar_opens(timeframe, 'stretches.from_time', 'stretches.to_time') }}
            as opens (open_time)
    ) as stale_bars
    cross join lateral {{ live_bar(timeframe) }}(stale_bars.symbol, stale_bars.open_time) as rolled_up
) as bars
where not exists (
    select 1 from ({{ stale_stretches(timeframe) }}) as stale
    where
        bars.is_of_the_mart
        and stale.symbol = bars.symbol
        and stale.from_time <= bars.open_time
        and stale.to_time > bars.open_time
)
{% endmacro %}


{#- The timeframe whose live bars a live bar is rolled up from. -#}
{% macro live_finer_timeframe(timeframe) %}
    {%- set minutes = timeframes()[timeframe]['minutes'] or 43200 -%}
    {% do return('1m' if minutes <= 60 else '1h' if minutes <= 1440 else '1d') %}
{% endmacro %}

{#- The model that a live bar is rolled up from. -#}
{% macro live_finer(timeframe) %}
    {%- set finer = live_finer_timeframe(timeframe) -%}
    {% do return('stg_market__candles_1m_live' if finer == '1m' else model_of(finer) ~ '_live') %}
{% endmacro %}

{#- The function that rolls one live bar up. -#}
{% macro live_bar(timeframe) %}
    {% do return(this.schema ~ '.live_bar_' ~ model_of(timeframe) | replace('candles_', '')) %}
{% endmacro %}


{#-
  SQL: stretches (symbol, from_time, to_time), from the start of a bar to the end of a bar, in
  which the mart may differ from the minutes: those with a change that the mart's cursor has not
  seen, those with a minute that is not stored yet, and without a cursor everything.

  A change may reach to the end of time, as an outage that goes on does. Bars are where minutes are.
-#}
{% macro stale_stretches(timeframe) %}
{%- set cursor = cursor_sql(ref(model_of(timeframe))) -%}
        select
            changes.symbol,
            {{ bar_open(timeframe, 'lower(spans.minutes)') }} as from_time,
            {{ end_of_last_bar(timeframe, 'spans.minutes') }} as to_time
        from ({{ cursor }}) as cursor
        inner join {{ source('ops', 'candle_changes').render() }} as changes
            on
                changes.changed_by >= pg_snapshot_xmin(cursor.snapshot)
                and not pg_visible_in_snapshot(changes.changed_by, cursor.snapshot)
        cross join lateral unnest(changes.minutes) as logged (minutes)
        cross join lateral (
            select
                case
                    when upper(logged.minutes) - lower(logged.minutes) < interval '366 days'
                        then logged.minutes
                    else logged.minutes * ops.stored_minutes(changes.symbol)
                end as minutes
        ) as spans
        where not isempty(spans.minutes)
        union all
        select
            symbol,
            {{ bar_open(timeframe, 'open_time') }} as from_time,
            {{ next_bar_open(timeframe, bar_open(timeframe, 'open_time')) }} as to_time
        from {{ source('market', 'live_candles').render() }}
        union all
        select
            symbols.symbol,
            {{ bar_open(timeframe, 'lower(stored.minutes)') }} as from_time,
            {{ end_of_last_bar(timeframe, 'stored.minutes') }} as to_time
        from (select 1 where not exists ({{ cursor }})) as never_built
        cross join ops.candle_symbols() as symbols (symbol)
        cross join lateral (select ops.stored_minutes(symbols.symbol) as minutes) as stored
{%- endmacro %}


{#-
  SQL: makes the function that rolls up one bar from what is known of its minutes now, in case it
  is not there as it should be. Its columns are those of the view but the symbol.
-#}
{% macro make_live_bar(timeframe) %}
{%- set body -%}
#variable_conflict use_column
declare
    bar_end timestamptz := {{ next_bar_open(timeframe, 'bar_open') }};
    -- first minute of the bar's last listing; instruments are asked first since nearly none has one
    listed_since timestamptz := '-infinity';
    halted tstzmultirange := (
        select range_agg(outages.minutes) from {{ local(ref('stg_ops__outages')) }} as outages
        where
            outages.market = market.market_of(of_symbol)
            and (outages.symbol = of_symbol or outages.symbol is null)
            and outages.minutes && tstzrange(bar_open, bar_end)
    );
begin
    if exists (
        select from {{ local(source('market', 'instruments')) }} as former
        where former.symbol = of_symbol and former.listed_to < bar_end
    ) then
        listed_since := (
            select coalesce(max(first_minutes.open_time), '-infinity')
            from {{ local(source('market', 'instruments')) }} as former
            cross join lateral (
                select least(
                    (
                        select stored.open_time from {{ local(source('market', 'candles_1m')) }} as stored
                        where
                            stored.symbol = of_symbol
                            and stored.open_time >= date_bin('1 minute', former.listed_to, '2001-01-01 00:00:00+00')
                        order by stored.open_time limit 1
                    ),
                    (
                        select live.open_time from {{ local(source('market', 'live_candles')) }} as live
                        where
                            live.symbol = of_symbol
                            and live.open_time >= date_bin('1 minute', former.listed_to, '2001-01-01 00:00:00+00')
                        order by live.open_time limit 1
                    )
                ) as open_time
            ) as first_minutes
            where
                former.symbol = of_symbol
                and first_minutes.open_time < bar_end
                and exists (
                    select from {{ local(source('market', 'instruments')) }} as later
                    where later.symbol = of_symbol and later.listed_from >= former.listed_to
                )
        );
    end if;
    return query
    select
        open_time, next_open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, minute_count,
        is_complete, is_closed, built_at
    from ({{ roll_up_query(
        timeframe,
        live_bars_within(timeframe),
        is_live=true
    ) }}) as rolled_up;
end
{%- endset -%}
{#- A plan for any bar would hold every partition of the minutes; of bars it is as good as one's own. -#}
{%- set plans = (
    'force_custom_plan' if live_finer_timeframe(timeframe) == '1m' else 'force_generic_plan'
) -%}
{{ make_bar_function(
    live_bar(timeframe),
    body,
    plans,
    'The bar of a symbol that opens at a time, rolled up from what is known of its minutes now.'
) }}
{% endmacro %}


{#-
  SQL: makes the function that tells a candle that is not stored yet. A join of the view's own
  would plan every partition of the minutes, whatever is asked.
-#}
{% macro make_live_minute() %}
{%- set body -%}
#variable_conflict use_column
begin
    if exists (
        select from {{ local(source('market', 'candles_1m')) }} as stored
        where stored.symbol = of_symbol and stored.open_time = bar_open
    ) then
        return;
    end if;
    return query
    select
        open_time, open_time + interval '1 minute', open, high, low, close, volume, quote_volume,
        trade_count, taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
        1, is_closed, is_closed, updated_at
    from {{ local(source('market', 'live_candles')) }} as live
    where live.symbol = of_symbol and live.open_time = bar_open;
end
{%- endset -%}
{{ make_bar_function(
    this.schema ~ '.live_bar_1m',
    body,
    'force_custom_plan',
    'The candle of a symbol and minute that is open or waits for confirmation, unless it is stored.'
) }}
{% endmacro %}


{#- SQL: the finer bars of one live bar, with the names of make_live_bar. -#}
{% macro live_bars_within(timeframe) -%}
{%- if live_finer_timeframe(timeframe) == '1m' -%}
(
    select
        stored.symbol, stored.open_time, stored.open_time + interval '1 minute' as next_open_time,
        stored.open, stored.high, stored.low, stored.close, stored.volume, stored.quote_volume,
        stored.trade_count, stored.taker_buy_volume, stored.taker_buy_quote_volume,
        stored.first_trade_id, stored.last_trade_id, 1 as minute_count, true as is_complete,
        true as is_closed
    from {{ local(source('market', 'candles_1m')) }} as stored
    where
        stored.symbol = of_symbol and stored.open_time >= bar_open and stored.open_time < bar_end
    union all
    select
        live.symbol, live.open_time, live.open_time + interval '1 minute' as next_open_time,
        live.open, live.high, live.low, live.close, live.volume, live.quote_volume,
        live.trade_count, live.taker_buy_volume, live.taker_buy_quote_volume,
        live.first_trade_id, live.last_trade_id, 1 as minute_count, live.is_closed as is_complete,
        live.is_closed
    from {{ local(source('market', 'live_candles')) }} as live
    where
        live.symbol = of_symbol and live.open_time >= bar_open and live.open_time < bar_end
        and not exists (
            select from {{ local(source('market', 'candles_1m')) }} as stored
            where
                stored.symbol = of_symbol and stored.open_time = live.open_time
                -- said again, so that the plan holds the bar's partition alone
                and stored.open_time >= bar_open and stored.open_time < bar_end
        )
)
{%- else -%}
(
    select * from {{ local(ref(live_finer(timeframe))) }} as finer
    where finer.symbol = of_symbol and finer.open_time >= bar_open and finer.open_time < bar_end
)
{%- endif -%}
{%- endmacro %}


{#- SQL: a relation without its database, since a function may be restored into another one. -#}
{% macro local(relation) %}
    {% do return(relation.include(database=false).render()) %}
{% endmacro %}
