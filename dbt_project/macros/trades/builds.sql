{#-
  A mart of trades that rebuilds only the sessions, or minutes of sessions, whose trades changed.
  Like build_by_cursor() for bars it runs in one transaction: take the new cursor, find what is
  touched, delete, insert, store the cursor. Two things differ:

  Trades are archived. The archive moves days of raw capture to files and drops their partitions,
  but the marts keep their rows. Sessions with rows from a dropped day ("sealed") are not rebuilt,
  not even by a full build.

  Trades come by the million. Each UTC day is built by its own statement, whose plan contains only
  that day's partition.

  The model marks where its query can be restricted: {{ only_touched_sessions('t', 'trade_time') }}.

  Config:
      parent: the mart that this one reads, which logs the sessions that it rebuilds. None for a
          mart that reads trades.
      by_hours: rebuild only the hours in which the parent changed, not whole sessions.
      keeps_sealed: the model reads trades and has the columns session and dataset.
      after_the_day: skip the session of the current day.
      functions: macros with the SQL functions that the model needs.
-#}
{% materialization from_trades, adapter='postgres' %}
    {%- set parent = ref(config.get('parent')) if config.get('parent') else none -%}
    {%- set mart = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set columns = model['columns'].keys() | join(', ') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('build_plan') %}{{ make_build_plan_sql(mart) }}{% endcall %}
    {% for name in config.get('functions', []) %}
        {% do run_query(context[name](this.schema)) %}
    {% endfor %}
    {%- set fits = existing is not none and existing.is_table and has_columns_of_model(existing) -%}
    {%- set has_cursor = run_query('select old_snapshot is not null from build_plan').rows[0][0] -%}
    {%- set is_full = not fits or should_full_refresh() or not has_cursor
        or (parent is not none and run_query(was_built_in_full_sql(parent)).rows[0][0]) -%}
    {%- set nothing = 'select * from (' ~ sql ~ ') as query_of_model limit 0' -%}

    {% if not fits and not (flags.EMPTY and existing is not none) %}
        {% if existing is not none %}
            {% do refuse_to_lose_sealed_sessions(existing) %}
            {% do adapter.drop_relation(existing) %}
        {% endif %}
        {% call statement('create') %}{{ get_create_table_as_sql(False, mart, nothing) }}{% endcall %}
        {% do create_indexes(mart) %}
        {% do persist_docs(mart, model) %}
    {% endif %}

    {% if flags.EMPTY %}
        {% call statement('main') %}{{ nothing }}{% endcall %}
    {% else %}
        {% call statement('touched') %}
            {{ lock_partitions_sql() if parent is none or config.get('keeps_sealed') }}
            create temporary table touched on commit drop as
            {{ all_sessions_sql(parent) if is_full else touched_sessions_sql(mart, parent) }};
            {{ leave_sealed_sql(mart) if config.get('keeps_sealed') }}
            analyze touched
        {% endcall %}
        {% call statement('main') %}
            {{ delete_all_sql(mart) if is_full else delete_touched_sql(mart) }}
        {% endcall %}
        {#- The planner has no statistics of grouped rows and would plan nested loops for millions. -#}
        {% do run_query('set local enable_nestloop = off; set local jit = off') %}
        {%- set days = run_query(
            'select session, min(from_time), max(to_time) from touched group by session order by session'
        ).rows -%}
        {% for day in days %}
            {% call statement('day') %}
                insert into {{ mart }} ({{ columns }})
                select {{ columns }} from ({{ restrict_to_touched_day(sql, *day) }}) as query_of_model
            {% endcall %}
        {% endfor %}
        {% call statement('log') %}
            {{ log_sessions_sql(mart, is_full) }};
            {{ 'analyze ' ~ mart ~ ';' ~ summarize_sql(mart) ~ ';' if is_full }}
            {{ store_cursor_sql(mart) }}
        {% endcall %}
    {% endif %}
    {% do apply_grants(mart, config.get('grants'), should_revoke=should_revoke(existing, is_full)) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [mart]}) }}
{% endmaterialization %}


{#-
  Marks where a query can be restricted to the touched sessions: after a relation with the columns
  symbol and session (day in raw tables) and optionally a time.
-#}
{% macro only_touched_sessions(alias, time=none, day='session') -%}
/* only_touched_sessions {{ alias }} {{ day }} {{ time or '-' }} */
{%- endmacro %}

{#-
  SQL: whether candles count a row of market.trades. Fills of the insurance fund and of
  auto-deleveraging have other types, and prices far from the market's. Null: the source sends no
  type, and no such fills.
-#}
{% macro is_of_the_market(alias) -%}
coalesce({{ alias }}.trade_type, 'MARKET') = 'MARKET'
{%- endmacro %}

{#- SQL: a query with its marks replaced by joins with "touched", for one day. -#}
{% macro restrict_to_touched_day(query, session, from_time, to_time) -%}
    {%- set of_day = 'inner join touched on touched.session = date \'' ~ session ~ '\''
        ~ ' and \\1.symbol = touched.symbol and \\1.\\2 = date \'' ~ session ~ '\'' -%}
    {%- set of_minutes = ' and \\1.\\3 >= touched.from_time and \\1.\\3 < touched.to_time'
        ~ ' and \\1.\\3 >= timestamptz \'' ~ from_time.isoformat() ~ '\''
        ~ ' and \\1.\\3 < timestamptz \'' ~ to_time.isoformat() ~ '\'' -%}
    {%- set restricted = modules.re.sub('/\\* only_touched_sessions (\\w+) (\\w+) - \\*/', of_day, query) -%}
    {{ modules.re.sub('/\\* only_touched_sessions (\\w+) (\\w+) (\\w+) \\*/', of_day ~ of_minutes, restricted) }}
{%- endmacro %}


{#- SQL: whether a mart was built in full since our last build. -#}
{% macro was_built_in_full_sql(parent) %}
    select exists (
        select from {{ source('ops', 'session_changes').render() }} as changes
        cross join build_plan
        where
            changes.relation = '{{ cursor_name(parent) }}'
            and changes.symbol is null
            and changes.changed_by >= pg_snapshot_xmin(build_plan.old_snapshot)
            and not pg_visible_in_snapshot(changes.changed_by, build_plan.old_snapshot)
    )
{% endmacro %}


{#-
  SQL: locks the partitions that the build reads. Otherwise a day could be dropped after the build
  has found it, and its sessions would be lost.
-#}
{% macro lock_partitions_sql() %}
    lock table only
    {{ source('market', 'agg_trades').render() }}, {{ source('market', 'trades').render() }}
    in access share mode;
{% endmacro %}


{#- SQL: every session, with its start and end. -#}
{% macro all_sessions_sql(parent) %}
    select
        symbol,
        session,
        {{ start_of_day('session') }} as from_time,
        {{ start_of_day('session + 1') }} as to_time
    from (
        {% if parent is none -%}
        select symbol, day as session from {{ source('market', 'agg_trades').render() }}
        union
        select symbol, day from {{ source('market', 'trades').render() }}
        {%- else -%}
        select distinct symbol, session from {{ parent }}
        {%- endif %}
    ) as sessions
    where {{ is_due('session') }}
{% endmacro %}

{#-
  SQL: what was touched since our last build. A mart of trades rebuilds minutes, or everything
  between the first and last of a session if more than 20 ranges changed. Other marts rebuild
  sessions, including those whose day has ended since.
-#}
{% macro touched_sessions_sql(mart, parent) %}
    {% if parent is none -%}
    select
        changed.symbol,
        changed.day as session,
        lower(spans.span) as from_time,
        upper(spans.span) as to_time
    from build_plan
    cross join lateral ops.changed_trades(build_plan.old_snapshot) as changed
    cross join lateral (
        select unnest(changed.minutes) as span
        where (select count(*) from unnest(changed.minutes)) <= 20
        union all
        select range_merge(changed.minutes)
        where (select count(*) from unnest(changed.minutes)) > 20
    ) as spans
    {%- elif config.get('by_hours') -%}
    select
        symbol,
        session,
        lower(hours) as from_time,
        upper(hours) as to_time
    from (
        select
            changes.symbol,
            changes.session,
            unnest(range_agg(tstzrange(
                date_trunc('hour', lower(spans.span), 'UTC'),
                date_trunc('hour', upper(spans.span) - interval '1 microsecond', 'UTC') + interval '1 hour'
            ))) as hours
        from {{ source('ops', 'session_changes').render() }} as changes
        cross join build_plan
        cross join lateral unnest(changes.minutes) as spans (span)
        where
            changes.relation = '{{ cursor_name(parent) }}'
            and changes.changed_by >= pg_snapshot_xmin(build_plan.old_snapshot)
            and not pg_visible_in_snapshot(changes.changed_by, build_plan.old_snapshot)
        group by changes.symbol, changes.session
    ) as touched_hours
    {%- else -%}
    select
        symbol,
        session,
        {{ start_of_day('session') }} as from_time,
        {{ start_of_day('session + 1') }} as to_time
    from (
        select
            changes.symbol,
            changes.session
        from {{ source('ops', 'session_changes').render() }} as changes
        cross join build_plan
        where
            changes.relation = '{{ cursor_name(parent) }}'
            and changes.changed_by >= pg_snapshot_xmin(build_plan.old_snapshot)
            and not pg_visible_in_snapshot(changes.changed_by, build_plan.old_snapshot)
        union
        select
            parent.symbol,
            parent.session
        from {{ parent }} as parent
        where parent.session >= (
            select (built_at at time zone 'UTC')::date
            from {{ source('ops', 'build_cursors').render() }}
            where relation = '{{ cursor_name(mart) }}' and target = '{{ target.name }}'
        ) and {{ 'true' if config.get('after_the_day') else 'false' }}
    ) as sessions
    where {{ is_due('session') }}
    {%- endif %}
{% endmacro %}

{% macro start_of_day(day) -%}({{ day }})::timestamp at time zone 'UTC'{%- endmacro %}

{% macro is_due(session) -%}
{{ session ~ " < (now() at time zone 'UTC')::date" if config.get('after_the_day') else 'true' }}
{%- endmacro %}


{#- SQL: whether the trades of a row were archived and dropped. -#}
{% macro is_sealed(row) -%}
exists (
        select from {{ source('ops', 'archived_partitions').render() }} as archived
        where
            archived.day = {{ row }}.session
            and archived.dataset = {{ row }}.dataset
            and archived.dropped_at is not null
    )
{%- endmacro %}

{% macro leave_sealed_sql(mart) %}
    delete from touched
    where
        touched.session in (
            select day from {{ source('ops', 'archived_partitions').render() }}
            where dropped_at is not null
        )
        and exists (
            select from {{ mart }} as kept
            where
                kept.symbol = touched.symbol
                and kept.session = touched.session
                {% if 'open_time' in model['columns'] -%}
                and kept.open_time >= {{ start_of_day('touched.session') }}
                and kept.open_time < {{ start_of_day('touched.session + 1') }}
                {%- endif %}
                and {{ is_sealed('kept') }}
        );
{% endmacro %}

{#-
  SQL: deletes everything except sealed sessions. A temporary table lists these first; a delete that
  checks each row against the archive takes quadratic time.
-#}
{% macro delete_all_sql(mart) %}
    {% if config.get('keeps_sealed') -%}
    create temporary table sealed_sessions on commit drop as
    select distinct kept.symbol, kept.session from {{ mart }} as kept
    where {{ is_sealed('kept') }};
    analyze sealed_sessions;
    {%- endif %}
    delete from {{ mart }} as kept
    {% if config.get('keeps_sealed') -%}
    where not exists (
        select from sealed_sessions as sealed
        where sealed.symbol = kept.symbol and sealed.session = kept.session
    )
    {%- endif %}
{% endmacro %}

{% macro delete_touched_sql(mart) %}
    delete from {{ mart }} as kept using touched
    where
        kept.symbol = touched.symbol
        and kept.session = touched.session
        {% if 'open_time' in model['columns'] -%}
        and kept.open_time >= touched.from_time
        and kept.open_time < touched.to_time
        {%- endif %}
{% endmacro %}


{#- SQL: summarizes the BRIN indexes after a full build, before autovacuum does. -#}
{% macro summarize_sql(mart) %}
    select brin_summarize_new_values(index.indexrelid)
    from pg_index as index
    inner join pg_class as relation on index.indexrelid = relation.oid
    inner join pg_am as method on relation.relam = method.oid
    where index.indrelid = '{{ mart }}'::regclass and method.amname = 'brin'
{% endmacro %}


{#- SQL: logs what was rebuilt, for the marts that read this one. -#}
{% macro log_sessions_sql(mart, is_full) %}
    insert into {{ source('ops', 'session_changes').render() }} (relation, symbol, session, minutes)
    {% if is_full -%}
    values ('{{ cursor_name(mart) }}', null, null, null)
    {%- else -%}
    select
        '{{ cursor_name(mart) }}',
        symbol,
        session,
        range_agg(tstzrange(
            date_trunc('minute', from_time, 'UTC'),
            date_trunc('minute', to_time - interval '1 microsecond', 'UTC') + interval '1 minute'
        ))
    from touched
    group by symbol, session
    {%- endif %}
{% endmacro %}


{#- Changed columns require a new table, and rows of archived trades cannot be built again. -#}
{% macro refuse_to_lose_sealed_sessions(existing) %}
    {% if not config.get('keeps_sealed') or var('forget_archived_sessions', false) %}
        {{ return(none) }}
    {% endif %}
    {%- set sealed = run_query(
        'select count(distinct (kept.symbol, kept.session)) from ' ~ existing ~ ' as kept where ' ~ is_sealed('kept')
    ).rows[0][0] -%}
    {% if sealed > 0 %}
        {% do exceptions.raise_compiler_error(
            existing ~ " does not have the columns of its model, and a new table would lose " ~ sealed
            ~ " sessions whose trades are archived: restore those days first (candelabra archive "
            ~ "restore), or give them up (--vars 'forget_archived_sessions: true')"
        ) %}
    {% endif %}
{% endmacro %}
