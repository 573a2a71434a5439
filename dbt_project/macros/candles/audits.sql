{#-
  SQL: creates the function that compares stored bars with bars rolled up anew. Builds rebuild only
  what the change log lists, so this finds what the log missed: bars or minutes that were changed by
  hand, a table that was restored alone, a disk fault.

  Each mart is compared with its parent. If every mart equals its parent, every mart equals its
  minutes. One call reads one snapshot, so builds and writers may work meanwhile. Skipped are bars
  that the mart's next build will rebuild, bars that were open at its last build, and marts that were
  never built in this cluster.
-#}
{% macro differing_bars_function() %}
    {{ config(materialized='sql_functions', tags=['views']) }}
create or replace function {{ this.schema }}.differing_bars(
    of_symbol text, slice_start timestamptz, slice_end timestamptz
)
returns table (
    timeframe text, open_time timestamptz, next_open_time timestamptz, stored jsonb, expected jsonb
)
language plpgsql stable strict security definer
set search_path = pg_catalog, pg_temp
-- With the values of the call, so that only the slice's partitions are planned.
set plan_cache_mode = force_custom_plan
as $function$
#variable_conflict use_column
declare
    first_bar timestamptz;
    last_bar timestamptz;
    cursor_snapshot pg_snapshot;
    cursor_time timestamptz;
    unseen tstzmultirange;
begin
    {%- for timeframe in timeframes() %}
    {%- set mart = ref(model_of(timeframe)) %}
    select cursors.snapshot, cursors.built_at into cursor_snapshot, cursor_time
    from ({{ cursor_sql(mart, 'snapshot, built_at') }}) as cursors;
    unseen := (
        select coalesce(range_agg(changes.minutes), '{}')
        from {{ local(source('ops', 'candle_changes')) }} as changes
        where
            changes.symbol = of_symbol
            and changes.changed_by >= pg_snapshot_xmin(cursor_snapshot)
            and not pg_visible_in_snapshot(changes.changed_by, cursor_snapshot)
    );
    first_bar := {{ bar_open(timeframe, 'slice_start') }};
    last_bar := {{ bar_open(timeframe, 'slice_end') }};
    return query
    select
        '{{ timeframe }}'::text,
        coalesce(stored.open_time, expected.open_time),
        coalesce(stored.next_open_time, expected.next_open_time),
        to_jsonb(stored) - 'symbol',
        to_jsonb(expected) - array['symbol', 'built_at']
    from (
        select
            symbol,
            {{- select_bar_columns() }},
            is_complete
        from {{ local(mart) }}
        where symbol = of_symbol and open_time >= first_bar and open_time < last_bar
    ) as stored
    full join (
        {{ modules.re.sub(
            '/\* in_reach (\w+) \*/',
            'and \\1.open_time >= first_bar and \\1.open_time < last_bar',
            roll_up_query(
                timeframe,
                local(ref(model_of(timeframes()[timeframe]['parent']))),
                local(ref('stg_ops__outages')),
                local(ref('stg_market__relistings')),
                '(select of_symbol as symbol, first_bar as from_time, last_bar as to_time)',
            )
        ) }}
    ) as expected on stored.open_time = expected.open_time
    where
        (
            {{- select_bar_columns('stored') }},
            stored.is_complete
        ) is distinct from (
            {{- select_bar_columns('expected') }},
            expected.is_complete
        )
        and coalesce(stored.next_open_time, expected.next_open_time) <= cursor_time
        and not unseen && tstzrange(
            coalesce(stored.open_time, expected.open_time),
            coalesce(stored.next_open_time, expected.next_open_time)
        );
    {%- endfor %}
end
$function$;
{% endmacro %}
