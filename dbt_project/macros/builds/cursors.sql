{#-
  Cursors: which changes of ops.candle_changes each mart has seen, as a pg_snapshot in
  ops.build_cursors.

  Transactions commit in a different order than they begin, so no time, sequence or transaction id
  can say which changes a build has seen. A snapshot can: it names the transactions whose work was
  visible. A build takes its cursor before it reads, so its data include at least those
  transactions; changes that it reads beyond the cursor are built again by the next build.
-#}

{#- Advisory lock: shared by builds, exclusive for pruning. -#}
{% macro prune_lock() %}{% do return("hashtextextended('candelabra prune', 0)") %}{% endmacro %}

{% macro cursor_name(relation) %}{% do return(relation.schema ~ '.' ~ relation.identifier) %}{% endmacro %}


{#-
  SQL: creates the temporary table build_plan (old_snapshot, old_time, new_snapshot, new_time).
  Old or new values are null if there is no cursor of this cluster.

  Two builds of the same mart run one after the other; otherwise both would insert the same bars.

  Args:
      parent: the mart whose cursor becomes ours; none for a mart built from the minutes.
-#}
{% macro make_build_plan_sql(relation, parent=none) %}
    select
        pg_advisory_xact_lock_shared({{ prune_lock() }}),
        pg_advisory_xact_lock(
            hashtextextended('candelabra build {{ target.name }} {{ cursor_name(relation) }}', 0)
        );
    create temporary table build_plan on commit drop as
    select
        own.snapshot as old_snapshot,
        own.built_at as old_time,
        {% if parent is none -%}
        pg_current_snapshot() as new_snapshot,
        now() as new_time
        {%- else -%}
        parent.snapshot as new_snapshot,
        parent.built_at as new_time
        {%- endif %}
    from (select) as always
    left join ({{ cursor_sql(relation, 'snapshot, built_at') }}) as own on true
    {% if parent is not none -%}
    left join ({{ cursor_sql(parent, 'snapshot, built_at') }}) as parent on true
    {%- endif %}
{% endmacro %}

{% macro cursor_sql(relation, columns='snapshot') -%}
    select {{ columns }} from {{ source('ops', 'build_cursors').render() }}
    where
        relation = '{{ cursor_name(relation) }}'
        and target = '{{ target.name }}'
        and system_identifier = ops.system_identifier()
{%- endmacro %}


{#-
  SQL: creates the temporary table touched (symbol, from_time, to_time): disjoint ranges of whole
  bars that contain every minute changed since the old snapshot.

  A bar that was running at the last build and has ended since is also touched if an outage covers
  part of its remainder: the outage completes the bar without any further minute.

  Args:
      log: relation (changed_by, symbol, minutes) of changes; by default ops.candle_changes.
-#}
{% macro make_touched_sql(timeframe, log=none) %}
    create temporary table touched on commit drop as
    with changed as (
        select
            changes.symbol,
            -- An outage may have no end.
            spans.minutes * tstzrange('1970-01-01 00:00:00+00', '2200-01-01 00:00:00+00') as minutes
        from {{ (log or source('ops', 'candle_changes')).render() }} as changes
        cross join build_plan
        cross join lateral unnest(changes.minutes) as spans (minutes)
        where
            changes.changed_by >= pg_snapshot_xmin(build_plan.old_snapshot)
            and not pg_visible_in_snapshot(changes.changed_by, build_plan.old_snapshot)
        union all
        select
            symbols.symbol,
            tstzrange(build_plan.old_time, build_plan.old_time, '[]') as minutes
        from build_plan
        cross join lateral (
            select {{ next_bar_open(timeframe, bar_open(timeframe, 'build_plan.old_time')) }} as bar_end
        ) as running
        inner join {{ source('ops', 'outages').render() }} as outages
            on outages.minutes && tstzrange(build_plan.old_time, running.bar_end)
        cross join lateral (
            select outages.symbol
            where outages.symbol is not null
            union all
            select stored.symbol from ops.candle_symbols() as stored (symbol)
            where outages.symbol is null and market.market_of(stored.symbol) = outages.market
        ) as symbols
        where running.bar_end <= now()
    ),

    ranges as (
        select
            symbol,
            unnest(range_agg(
                tstzrange(
                    {{ bar_open(timeframe, 'lower(minutes)') }}, {{ end_of_last_bar(timeframe, 'minutes') }}
                )
            )) as touched_range
        from changed
        where not isempty(minutes)
        group by symbol
    )

    select
        symbol,
        lower(touched_range) as from_time,
        upper(touched_range) as to_time
    from ranges;
    analyze touched
{% endmacro %}


{% macro store_cursor_sql(relation) %}
    insert into {{ source('ops', 'build_cursors').render() }}
    (relation, target, system_identifier, snapshot, built_at)
    select
        '{{ cursor_name(relation) }}',
        '{{ target.name }}',
        ops.system_identifier(),
        new_snapshot,
        new_time
    from build_plan
    on conflict (relation, target) do update set
        system_identifier = excluded.system_identifier,
        snapshot = excluded.snapshot,
        built_at = excluded.built_at
{% endmacro %}


{#-
  SQL: deletes the changes that every cursor has seen. Runs after each dbt command of target prod;
  other targets must not touch production's cursors and logs.

  While a build is running its cursor is not stored yet, so pruning is left to the next command.
  Transaction ids beyond this cluster's came with a restore from another cluster. Full builds have
  replaced every mart by then, and those changes would look unseen forever.
-#}
{% macro prune_changes() %}
    {% if execute and not flags.EMPTY and target.name == 'prod' %}
    do $$
    begin
        if not pg_try_advisory_xact_lock({{ prune_lock() }}) then
            return;
        end if;
        delete from {{ source('ops', 'build_cursors').render() }}
        where
            system_identifier <> ops.system_identifier()
            or built_at < now() - interval '{{ var("cursor_max_age_days") | int }} days';
        {% for log in ['candle_changes', 'status_changes', 'trade_changes', 'session_changes'] -%}
        delete from {{ source('ops', log).render() }}
        where
            changed_by < (
                select min(pg_snapshot_xmin(snapshot)) from {{ source('ops', 'build_cursors').render() }}
            )
            or changed_by >= pg_snapshot_xmax(pg_current_snapshot());
        {% endfor %}
    end
    $$
    {% endif %}
{% endmacro %}
