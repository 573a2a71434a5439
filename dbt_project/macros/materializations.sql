{#-
  A mart of bars that rebuilds only the bars whose minutes changed, in one transaction:
  the new cursor first, then what is touched, then delete, append, and the cursor.

  Built in full: a mart that is new, has no cursor of this cluster and target, has other columns
  than its model, or is asked to (--full-refresh). A full build replaces the rows, not the table,
  so that views and grants of readers outlive it; only other columns make a new table.
  With --empty the query is tried and nothing kept.
-#}
{% materialization rolled_up, adapter='postgres' %}
    {%- set timeframe = config.require('timeframe') -%}
    {%- set parent = ref(config.require('parent')) -%}
    {%- set parent_mart = none if timeframes()[timeframe]['parent'] == '1m' else parent -%}
    {%- set mart = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set columns = model['columns'].keys() | join(', ') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {#- BEGIN: the first statement below opens the transaction. -#}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('build_plan') %}{{ make_build_plan_sql(mart, parent_mart) }}{% endcall %}
    {%- set plan = run_query(
        'select old_snapshot is not null as has_old, new_snapshot is not null as has_new from build_plan'
    ).rows[0] -%}

    {%- set fits = existing is not none and existing.is_table and has_columns_of_model(existing) -%}
    {%- set is_full = not fits or should_full_refresh() or not plan['has_old'] -%}

    {% if not plan['has_new'] and not flags.EMPTY %}
        {% do exceptions.raise_compiler_error(
            cursor_name(mart) ~ " is built from " ~ cursor_name(parent) ~ ", which has no cursor of this "
            ~ "cluster in ops.build_cursors: build it first (dbt build --select +" ~ mart.identifier ~ ")"
        ) %}
    {% endif %}

    {% if flags.EMPTY and existing is not none %}
        {% call statement('main') %}
            select {{ columns }} from ({{ sql }}) as query_of_model limit 0
        {% endcall %}
    {% elif not is_full %}
        {% call statement('touched') %}{{ make_touched_sql(timeframe) }}{% endcall %}
        {% call statement('main') %}
            delete from {{ mart }} as bar using touched
            where
                bar.symbol = touched.symbol
                and bar.open_time >= touched.from_time
                and bar.open_time < touched.to_time;
            insert into {{ mart }} ({{ columns }})
            select {{ columns }} from (
                {{ roll_up_query(
                    timeframe, parent, ref('stg_ops__outages'), ref('stg_market__relistings'), 'touched'
                ) }}
            ) as query_of_model
        {% endcall %}
    {% elif fits %}
        {% call statement('main') %}
            delete from {{ mart }};
            insert into {{ mart }} ({{ columns }})
            select {{ columns }} from ({{ sql }}) as query_of_model order by symbol, open_time
        {% endcall %}
    {% else %}
        {% if existing is not none %}{% do adapter.drop_relation(existing) %}{% endif %}
        {% call statement('main') %}{{ get_create_table_as_sql(False, mart, sql) }}{% endcall %}
        {% do create_indexes(mart) %}
        {% do persist_docs(mart, model) %}
    {% endif %}

    {% if not flags.EMPTY %}
        {% if is_full %}
            {% call statement('analyze') %}analyze {{ mart }}{% endcall %}
        {% endif %}
        {% call statement('store_cursor') %}{{ store_cursor_sql(mart) }}{% endcall %}
    {% endif %}
    {% do apply_grants(mart, config.get('grants'), should_revoke=should_revoke(existing, is_full)) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [mart]}) }}
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
