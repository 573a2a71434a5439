{#-
  SQL: creates or replaces a function of a symbol and a time, unless its definition is the same.
  Live bars and relistings use functions instead of joins: a function is planned when it is called,
  for the given time, while a view is planned over every partition of the minutes.

  Args:
      argument: name of the time argument.
      result: result type, followed by further clauses such as "rows 1".
      plans: plan_cache_mode.
-#}
{% macro make_function(function, argument, result, body, plans, comment) %}
{%- set type = result | replace(' rows 1', '') | replace(' parallel safe', '') -%}
do $make$
declare
    body text := $body$
{{ body }}
$body$;
    settings text[] := array['search_path=pg_catalog, pg_temp', 'plan_cache_mode={{ plans }}'];
    definition text := $create$
        create or replace function {{ function }}(of_symbol text, {{ argument }} timestamptz)
        returns {{ result }}
        language plpgsql stable strict security definer
        set search_path = pg_catalog, pg_temp
        set plan_cache_mode = {{ plans }}
        as %L
    $create$;
begin
    -- Models are built in parallel; only one may create the function.
    perform pg_advisory_xact_lock(hashtextextended('candelabra {{ function }}', 0));
    if exists (
        select from pg_proc
        where
            oid = to_regprocedure('{{ function }}(text, timestamptz)')
            and prosrc = body
            and proconfig = settings
            and pg_get_function_result(oid) = '{{ type }}'
    ) then
        return;
    end if;
    begin
        execute format(definition, body);
    exception when invalid_function_definition then
        -- The result columns changed; the view that used them is created again afterwards.
        drop function {{ function }}(text, timestamptz) cascade;
        execute format(definition, body);
    end;
    comment on function {{ function }}(text, timestamptz) is '{{ comment }}';
end
$make$
{% endmacro %}


{#-
  A model whose SQL creates functions. They are replaced in place, and only if the SQL differs from
  the last build's, so that cached plans of open sessions stay valid. The model is named after one
  of its functions, whose comment holds a digest of the SQL. Concurrent builds run one after the
  other. A function whose result columns change is dropped with its dependents first, because
  PostgreSQL cannot replace it.
-#}
{% materialization sql_functions, adapter='postgres' %}
    {%- set digest = local_md5(sql) -%}
    {%- set comment = model.description | trim ~ ' (definition ' ~ digest ~ ')' -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('lock') %}
        select pg_advisory_xact_lock(hashtextextended('candelabra functions {{ this.schema }}', 0))
    {% endcall %}
    {%- set found -%}
        select
            signature.name,
            coalesce(obj_description(signature.name, 'pg_proc') like '%{{ digest }}%', false) as is_same
        from (
            select oid::regprocedure as name from pg_proc
            where
                proname = '{{ this.identifier }}'
                and pronamespace = to_regnamespace('{{ this.schema }}')
        ) as signature
    {%- endset -%}
    {%- set existing = run_query(found).rows -%}
    {% if existing | length == 1 and existing[0]['is_same'] %}
        {% call statement('main') %}select 'the same definition'{% endcall %}
    {% else %}
        {% call statement('main') %}
            do $functions$
            begin
                begin
                    execute $definition${{ sql }}$definition$;
                exception when invalid_function_definition then
                    {%- for function in existing %}
                    drop function {{ function['name'] }} cascade;
                    {%- endfor %}
                    execute $definition${{ sql }}$definition$;
                end;
            end
            $functions$;
            comment on function {{ this.schema }}.{{ this.identifier }} is
            '{{ comment | replace("'", "''") }}'
        {% endcall %}
    {% endif %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': []}) }}
{% endmaterialization %}
