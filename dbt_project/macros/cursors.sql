{#-
  What a build knows of ops.candle_changes, kept as pg_snapshot in ops.build_cursors.

  Times, sequences and transaction ids cannot say which changes a build has seen, because
  transactions commit in another order than they begin. A snapshot can: it names the
  transactions whose work was visible. A build takes its new cursor before it reads anything, so
  whatever it reads holds at least that much; what it happens to read beyond is built again.
-#}

{#- Advisory lock that builds share and pruning wants alone. -#}
{% macro prune_lock() %}{% do return("hashtextextended('candelabra prune', 0)") %}{% endmacro %}

{% macro cursor_name(relation) %}{% do return(relation.schema ~ '.' ~ relation.identifier) %}{% endmacro %}


{#-
  SQL: makes the temporary table build_plan (old_snapshot, old_time, new_snapshot, new_time).

  The old or the new ones are null where there is no cursor of this cluster. The second build of the
  same mart waits for the first: else both would append the same bars.

  Args:
      parent: the mart this one is built from; none for one built from the minutes. Its cursor
          becomes ours, since of changes it has not seen we cannot have seen the effect.
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
  SQL: makes the temporary table touched (symbol, from_time, to_time): disjoint stretches, from
  the start of a bar to the end of a bar, that hold every minute changed since the old snapshot, and
  the bar that was not over then and is now, if an outage lies in what was to come of it: it needs no
  minute more to be complete.

  Args:
      log: relation (changed_by, symbol, minutes) that tells what changed; none for the values.
-#}
{% macro make_touched_sql(timeframe, log=none) %}
    create temporary table touched on commit drop as
    with changed as (
        select
            changes.symbol,
            -- an outage may have no known end
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

    stretches as (
        select
            symbol,
            unnest(range_agg(
                tstzrange(
                    {{ bar_open(timeframe, 'lower(minutes)') }}, {{ end_of_last_bar(timeframe, 'minutes') }}
                )
            )) as stretch
        from changed
        where not isempty(minutes)
        group by symbol
    )

    select
        symbol,
        lower(stretch) as from_time,
        upper(stretch) as to_time
    from stretches;
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
  SQL: forgets the changes that every cursor has seen. Runs after each invocation of dbt by
  production's target; any other leaves production's cursors and log alone.

  A build that is under way holds changes that no cursor names yet: then pruning is left to the
  next run. Ids beyond this cluster's came with a restore from another one, where full builds
  have replaced every mart; they would look unseen for ever.
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
