{#-
  Replaces a view in place, and only if its definition differs.

  dbt's own materialization drops and recreates the view on every run, together with the users'
  views that depend on it. Every replacement also waits for running readers and blocks new ones.
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
                    -- Changed columns cannot be replaced: drop the view with its dependents.
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
