{#-
  A table that builds anew only what changed, in one transaction: the new cursor first, then what
  is touched, then delete, append, and the cursor.

  Built in full: a table that is new, has no cursor of this cluster and target, has other columns
  than its model, or is asked to (--full-refresh). A full build replaces the rows, not the table,
  so that views and grants of readers outlive it; only other columns make a new table.
  With --empty the query is tried and nothing kept.

  Args:
      parent: the model whose cursor becomes ours, since of changes it has not seen we cannot have
          seen the effect; none for one built from the minutes.
      steps: statements that make, in order, the temporary table named last.
      stretches: that table (symbol, from_time, to_time): disjoint, and by open time.
      query: rows of those stretches; the model's own gives all.
-#}
{% macro build_by_cursor(parent, steps, stretches, query) %}
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
            cursor_name(table) ~ " is built from " ~ cursor_name(parent) ~ ", which has no cursor of this "
            ~ "cluster in ops.build_cursors: build it first (dbt build --select +" ~ table.identifier ~ ")"
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
            'select min(from_time)::text as from_time, max(to_time)::text as to_time from ' ~ stretches
        ).rows[0] -%}
        {% call statement('main') %}
            {% if reach['from_time'] is none %}
            select
            {% else %}
            delete from {{ table }} as built using {{ stretches }} as stretches
            where
                built.symbol = stretches.symbol
                and built.open_time >= stretches.from_time
                and built.open_time < stretches.to_time;
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
  Marks where a query of stretches may be held to the time that all of them lie in, after a condition
  on a relation with the column open_time. Known when the query is planned, it leaves the partitions
  of other months out of the plan, which a join with the stretches cannot: to plan those of ten years
  takes more than to build a bar.
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
  SQL: a new table with the rows of a query, and then its constraints. dbt would make the table with
  them and insert into it; but PostgreSQL has no parallel workers for INSERT, and checks constraints
  for all rows at once in less time than row by row.
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


{#- A mart of bars that rebuilds only the bars whose minutes changed. -#}
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


{#- Whether a table has the columns that the model's contract names, with their types. -#}
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


{#-
  Views replaced in place, and only where they differ. dbt's own materialization drops the old
  view with everything that depends on it, users' views among them, and does so on every run;
  and any replacement waits for the view's readers while new readers wait for it.
-#}
{% materialization view, adapter='postgres' %}
    {%- set view = this.incorporate(type='view') -%}
    {%- set existing = load_cached_relation(this) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% if existing is not none and not existing.is_view %}
        {% do adapter.drop_relation(existing) %}
    {% endif %}
    {% call statement('main') %}
        do $replace_view$
        begin
            execute $view$create temporary view wanted_view as {{ sql }}$view$;
            if pg_get_viewdef('wanted_view'::regclass)
                is distinct from pg_get_viewdef(to_regclass('{{ view }}'))
            then
                begin
                    execute $view${{ get_replace_view_sql(view, sql) }}$view$;
                exception when invalid_table_definition then
                    -- columns were renamed, removed or retyped: what depends on it must go
                    drop view {{ view }} cascade;
                    execute $view${{ get_replace_view_sql(view, sql) }}$view$;
                end;
            end if;
            drop view wanted_view;
        end
        $replace_view$
    {% endcall %}
    {% do apply_grants(view, config.get('grants'), should_revoke=True) %}
    {% do persist_docs(view, model) %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [view]}) }}
{% endmaterialization %}
