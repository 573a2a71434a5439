{#-
  Incremental builds from the change logs. The materializations at the end of this file share
  build_by_cursor(): rolled_up (bars), rebuilt (counts) and recursive (indicators).
-#}

{#-
  Rebuilds only the rows whose inputs changed, in one transaction: take the new cursor, find the
  touched ranges, delete their rows, insert them again, store the cursor.

  Builds in full if the table is new, has no cursor of this cluster and target, has columns that
  differ from the model's, or if --full-refresh is given. A full build replaces the rows and keeps
  the table, so that users' views and grants survive; only changed columns require a new table.
  With --empty the query runs and stores nothing.

  Args:
      parent: the mart that this one reads; its cursor becomes ours, because a change that the
          parent has not seen cannot be in our rows. None for a mart built from the minutes.
      steps: statements that create the temporary table named by ranges.
      ranges: temporary table (symbol, from_time, to_time) of disjoint ranges of open times.
      query: the rows of those ranges. The model's own SQL selects all rows.
-#}
{% macro build_by_cursor(parent, steps, ranges, query) %}
    {%- set table = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set columns = model['columns'].keys() | join(', ') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {#- BEGIN: the first statement below opens the transaction. -#}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('build_plan') %}{{ make_build_plan_sql(table, parent) }}{% endcall %}
    {%- set plan = run_query(
        'select old_snapshot is not null as has_old, new_snapshot is not null as has_new from build_plan'
    ).rows[0] -%}

    {%- set fits = existing is not none and existing.is_table and has_columns_of_model(existing) -%}
    {%- set is_full = not fits or should_full_refresh() or not plan['has_old'] -%}

    {% if not plan['has_new'] and not flags.EMPTY %}
        {% do exceptions.raise_compiler_error(
            cursor_name(table) ~ " reads " ~ cursor_name(parent) ~ ", which has no cursor of this cluster "
            ~ "in ops.build_cursors: build it first (dbt build --select +" ~ table.identifier ~ ")"
        ) %}
    {% endif %}

    {% if flags.EMPTY and existing is not none %}
        {% call statement('main') %}
            select {{ columns }} from ({{ sql }}) as query_of_model limit 0
        {% endcall %}
    {% elif not is_full %}
        {% for step in steps %}
            {% call statement('step_' ~ loop.index) %}{{ step }}{% endcall %}
        {% endfor %}
        {%- set reach = run_query(
            'select min(from_time)::text as from_time, max(to_time)::text as to_time from ' ~ ranges
        ).rows[0] -%}
        {% call statement('main') %}
            {% if reach['from_time'] is none %}
            select
            {% else %}
            delete from {{ table }} as built using {{ ranges }} as ranges
            where
                built.symbol = ranges.symbol
                and built.open_time >= ranges.from_time
                and built.open_time < ranges.to_time;
            insert into {{ table }} ({{ columns }})
            select {{ columns }} from (
                {{ within_reach(query, reach['from_time'], reach['to_time']) }}
            ) as query_of_model
            {% endif %}
        {% endcall %}
    {% elif fits %}
        {% call statement('main') %}
            delete from {{ table }};
            insert into {{ table }} ({{ columns }})
            select {{ columns }} from ({{ sql }}) as query_of_model order by symbol, open_time
        {% endcall %}
    {% else %}
        {% if existing is not none %}{% do adapter.drop_relation(existing) %}{% endif %}
        {% call statement('main') %}{{ create_table_sql(table, sql) }}{% endcall %}
        {% do create_indexes(table) %}
        {% do persist_docs(table, model) %}
    {% endif %}

    {% if not flags.EMPTY %}
        {% if is_full %}
            {% call statement('analyze') %}analyze {{ table }}{% endcall %}
        {% endif %}
        {% call statement('store_cursor') %}{{ store_cursor_sql(table) }}{% endcall %}
    {% endif %}
    {% do apply_grants(table, config.get('grants'), should_revoke=should_revoke(existing, is_full)) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {% do return({'relations': [table]}) %}
{% endmacro %}


{#-
  Marks a place after a condition on a relation with the column open_time, where within_reach()
  inserts the first and last time of all touched ranges as constants. With constants PostgreSQL
  prunes partitions while planning, which a join with the ranges does not allow; planning ten years
  of partitions takes longer than building a bar.
-#}
{% macro in_reach(relation) -%}
/* in_reach {{ relation }} */
{%- endmacro %}

{% macro within_reach(query, from_time, to_time) -%}
{{ modules.re.sub(
    '/\* in_reach (\w+) \*/',
    "and \\1.open_time >= timestamptz '" ~ from_time ~ "' and \\1.open_time < timestamptz '" ~ to_time ~ "'",
    query
) }}
{%- endmacro %}


{#-
  SQL: creates a table from a query and then adds the constraints. dbt creates the table with its
  constraints and inserts into it; but INSERT has no parallel workers, and PostgreSQL checks a
  constraint faster for all rows together than row by row.
-#}
{% macro create_table_sql(table, query) %}
    {% if not config.get('contract').enforced %}
        {{ return(get_create_table_as_sql(False, table, query)) }}
    {% endif %}
    {%- set parts = [] -%}
    {%- for column in model['columns'].values() -%}
        {%- for constraint in column['constraints'] if constraint['type'] == 'not_null' -%}
            {%- do parts.append('alter column ' ~ column['name'] ~ ' set not null') -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for constraint in adapter.render_raw_model_constraints(model['constraints']) -%}
        {%- do parts.append('add ' ~ constraint) -%}
    {%- endfor %}
    {{ get_assert_columns_equivalent(query) }}
    create table {{ table }} as
    select {{ model['columns'].keys() | join(', ') }} from ({{ query }}) as query_of_model;
    {% if parts %}alter table {{ table }} {{ parts | join(', ') }}{% endif %}
{% endmacro %}


{#- Whether a table has exactly the columns and types of the model's contract. -#}
{% macro has_columns_of_model(relation) %}
    {%- set wanted = [] -%}
    {%- for column in model['columns'].values() -%}
        {%- do wanted.append(column['name'] ~ ' ' ~ column['data_type']) -%}
    {%- endfor -%}
    {%- set found = [] -%}
    {%- for column in adapter.get_columns_in_relation(relation) -%}
        {%- do found.append(column.name ~ ' ' ~ column.dtype) -%}
    {%- endfor -%}
    {% do return(wanted | sort == found | sort) %}
{% endmacro %}


{#- Bars: rebuilds only those whose minutes changed. -#}
{% materialization rolled_up, adapter='postgres' %}
    {%- set timeframe = config.require('timeframe') -%}
    {%- set parent = ref(config.require('parent')) -%}
    {%- set query = roll_up_query(
        timeframe, parent, ref('stg_ops__outages'), ref('stg_market__relistings'), 'touched'
    ) -%}
    {{ return(build_by_cursor(
        none if timeframes()[timeframe]['parent'] == '1m' else parent,
        [make_touched_sql(timeframe)],
        'touched',
        query,
    )) }}
{% endmaterialization %}


{#-
  Counts for each hour or day: counts again only the periods in which something changed, including
  changes of status alone.

  Config:
      timeframe: width of a period; the model's column open_time is its start.
      parent: the model that is counted from, if that one is built like this too.

  The model marks with {{ only_touched('minutes') }}, after a relation with the columns symbol and
  open_time, where its query can be restricted. A full build ignores the mark.
-#}
{% materialization rebuilt, adapter='postgres' %}
    {%- set parent = config.get('parent') -%}
    {{ return(build_by_cursor(
        ref(parent) if parent else none,
        [make_touched_sql(config.require('timeframe'), source('ops', 'coverage_changes'))],
        'touched',
        restrict_to_touched(sql),
    )) }}
{% endmaterialization %}

{% macro only_touched(relation) -%}
/* only_touched {{ relation }} */
{%- endmacro %}

{% macro restrict_to_touched(query) -%}
{{ modules.re.sub(
    '/\* only_touched (\w+) \*/',
    'inner join touched on \\1.symbol = touched.symbol'
    ~ ' and \\1.open_time >= touched.from_time and \\1.open_time < touched.to_time'
    ~ ' /* in_reach \\1 */',
    query
) }}
{%- endmacro %}


{#-
  Indicators, whose values depend on earlier bars: a change is followed forward as far as it
  reaches. Each range continues from the state in the stored row before it, with the same bits as
  a full build.
-#}
{% materialization recursive, adapter='postgres' %}
    {%- set timeframe = config.require('timeframe') -%}
    {%- set parent = ref(config.require('parent')) -%}
    {%- set query = indicators_query(
        timeframe,
        parent,
        ref('stg_market__relistings'),
        'ranges',
        ref('indicators').schema,
        stored=this.incorporate(type='table'),
    ) -%}
    {{ return(build_by_cursor(
        parent, [make_touched_sql(timeframe), make_reached_ranges_sql(timeframe, parent)], 'ranges', query,
    )) }}
{% endmaterialization %}
