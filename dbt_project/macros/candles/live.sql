{#-
  A view of bars that is always up to date, in one line: {{ live('5m') }}.

  It shows the mart's bars, except stale bars, which it rolls up when they are read. A bar is stale
  if a minute changed since the mart's last build, or if one of its candles is not stored yet. The
  change log covers repairs of any age. Without a cursor of this cluster every bar is stale.

  A function rolls up one bar, so that PostgreSQL plans only the partition that the bar needs; a
  join would plan all of them. A bar of up to an hour is rolled up from minutes, up to a day from
  live hours, and a wider one from live days, so that a month does not read 43,200 minutes.
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
    {{- select_bar_columns('bars') }},
    -- A stale bar may contain its last minute while that is still open.
    bars.is_complete and bars.is_closed as is_complete,
    bars.is_closed,
    bars.built_at
from (
    select
        symbol,
        {{- select_bar_columns() }},
        is_complete,
        next_open_time <= now() as is_closed,
        built_at,
        true as is_from_mart
    from {{ mart }}
    union all
    select
        -- Conditions on symbol and time apply to these two before any bar is rolled up.
        stale_bars.symbol,
        stale_bars.open_time,
        {{- select_bar_columns('rolled_up', without=['open_time']) }},
        rolled_up.is_complete,
        rolled_up.is_closed,
        rolled_up.built_at,
        false as is_from_mart
    from (
        select distinct
            ranges.symbol,
            opens.open_time
        from ({{ stale_ranges(timeframe) }}) as ranges
        cross join lateral {{ bar_opens(timeframe, 'ranges.from_time', 'ranges.to_time') }}
            as opens (open_time)
    ) as stale_bars
    cross join lateral {{ live_bar(timeframe) }}(stale_bars.symbol, stale_bars.open_time) as rolled_up
) as bars
where not exists (
    select 1 from ({{ stale_ranges(timeframe) }}) as stale
    where
        bars.is_from_mart
        and stale.symbol = bars.symbol
        and stale.from_time <= bars.open_time
        and stale.to_time > bars.open_time
)
{% endmacro %}


{#- The timeframe from whose live bars a live bar is rolled up. -#}
{% macro live_finer_timeframe(timeframe) %}
    {%- set minutes = timeframes()[timeframe]['minutes'] or 43200 -%}
    {% do return('1m' if minutes <= 60 else '1h' if minutes <= 1440 else '1d') %}
{% endmacro %}

{#- The model from which a live bar is rolled up. -#}
{% macro live_finer(timeframe) %}
    {%- set finer = live_finer_timeframe(timeframe) -%}
    {% do return('stg_market__candles_1m_live' if finer == '1m' else model_of(finer) ~ '_live') %}
{% endmacro %}

{#- The function that rolls up one live bar. -#}
{% macro live_bar(timeframe) %}
    {% do return(this.schema ~ '.live_bar_' ~ model_of(timeframe) | replace('candles_', '')) %}
{% endmacro %}


{#-
  SQL: ranges (symbol, from_time, to_time) of whole bars in which the mart may differ from the
  minutes: changes that the mart's cursor has not seen, candles that are not stored yet, and
  everything if there is no cursor.

  A change without an end, such as an ongoing outage, is limited to the stored minutes.
-#}
{% macro stale_ranges(timeframe) %}
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
  SQL: creates the function that rolls up one bar from its minutes as they are now. It returns the
  columns of the live view without the symbol.
-#}
{% macro make_live_bar(timeframe) %}
{%- set body -%}
#variable_conflict use_column
declare
    bar_end timestamptz := {{ next_bar_open(timeframe, 'bar_open') }};
    -- First minute of the bar's last listing. Checked only for relisted symbols, which are rare.
    listed_since timestamptz := '-infinity';
    outage_minutes tstzmultirange := (
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
                        select live.open_time from market.live_candles_of(of_symbol) as live
                        where
                            live.open_time >= date_bin('1 minute', former.listed_to, '2001-01-01 00:00:00+00')
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
        {{- select_bar_columns() }},
        is_complete, is_closed, built_at
    from ({{ roll_up_query(
        timeframe,
        live_bars_within(timeframe),
        is_live=true
    ) }}) as rolled_up;
end
{%- endset -%}
{#- A generic plan over the minutes would include every partition; over bars it is as good as a custom one. -#}
{%- set plans = (
    'force_custom_plan' if live_finer_timeframe(timeframe) == '1m' else 'force_generic_plan'
) -%}
{{ make_bar_function(
    live_bar(timeframe),
    body,
    plans,
    'The bar of a symbol with a given open time, rolled up from its minutes as they are now.'
) }}
{% endmacro %}


{#-
  SQL: creates the function that returns a candle that is not stored yet. A join in the view would
  plan every partition of the minutes.
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
        open_time, open_time + interval '1 minute',
        {{- select_bar_columns(without=['open_time', 'next_open_time', 'minute_count']) }},
        1, is_closed, is_closed, updated_at
    from market.live_candles_of(of_symbol) as live
    where live.open_time = bar_open;
end
{%- endset -%}
{{ make_bar_function(
    this.schema ~ '.live_bar_1m',
    body,
    'force_custom_plan',
    'The candle of a symbol and minute that is open or awaits verification; empty if it is stored.'
) }}
{% endmacro %}


{#- SQL: columns of a candle, named as those of a bar. -#}
{% macro minute_as_bar(relation) -%}
{{ relation }}.symbol,
    {{- select_bar_columns(relation, without=['next_open_time', 'minute_count']) }},
    {{ relation }}.open_time + interval '1 minute' as next_open_time,
    1 as minute_count
{%- endmacro %}


{#- SQL: the finer bars of one live bar; uses the variables of make_live_bar(). -#}
{% macro live_bars_within(timeframe) -%}
{%- if live_finer_timeframe(timeframe) == '1m' -%}
(
    select
        {{ minute_as_bar('stored') }},
        true as is_complete,
        true as is_closed
    from {{ local(source('market', 'candles_1m')) }} as stored
    where
        stored.symbol = of_symbol and stored.open_time >= bar_open and stored.open_time < bar_end
    union all
    select
        {{ minute_as_bar('live') }},
        live.is_closed as is_complete,
        live.is_closed
    from market.live_candles_of(of_symbol) as live
    where
        live.open_time >= bar_open and live.open_time < bar_end
        and not exists (
            select from {{ local(source('market', 'candles_1m')) }} as stored
            where
                stored.symbol = of_symbol and stored.open_time = live.open_time
                -- Repeated, so that the plan contains only the bar's partition.
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


{#- SQL: a relation without its database, because a function may be restored into another one. -#}
{% macro local(relation) %}
    {% do return(relation.include(database=false).render()) %}
{% endmacro %}


{#- SQL: creates a function that returns at most one bar of a symbol. -#}
{% macro make_bar_function(function, body, plans, comment) %}
{%- set columns = [] -%}
{%- for name, type in bar_columns().items() -%}
    {%- do columns.append(name ~ ' ' ~ type) -%}
{%- endfor -%}
{%- set result = (
    'TABLE(' ~ columns | join(', ')
    ~ ', is_complete boolean, is_closed boolean, built_at timestamp with time zone)'
) -%}
{{ make_function(function, 'bar_open', result ~ ' rows 1', body, plans, comment) }}
{% endmacro %}
