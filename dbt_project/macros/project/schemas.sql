{#-
  Target prod builds into the schema that a model names; every other target builds into its own.

  A target whose schema is one of production's (CANDELABRA_DBT_DEV_SCHEMA=marts) is refused: it
  would replace production's marts, and production's cursors would then claim rows that another
  target built.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if target.name == 'prod' -%}
        {{ (custom_schema_name or target.schema) | trim }}
    {%- elif target.schema | lower in ['marts', 'marts_audit', 'bi', 'market', 'ops', 'public'] -%}
        {% do exceptions.raise_compiler_error(
            "target " ~ target.name ~ " would build into " ~ target.schema ~ ", which is production's: "
            ~ "set another schema (CANDELABRA_DBT_DEV_SCHEMA)"
        ) %}
    {%- elif custom_schema_name == 'marts_audit' -%}
        {{ target.schema }}_audit
    {%- else -%}
        {{ target.schema }}
    {%- endif -%}
{%- endmacro %}


{#-
  Overrides dbt's macro, which warns that numeric without a precision may round. PostgreSQL's
  numeric keeps every digit, which is why the marts use it.
-#}
{% macro postgres__get_empty_schema_sql(columns) %}
    {%- set untyped = columns.values() | rejectattr('data_type') | map(attribute='name') | list -%}
    {%- if untyped -%}
        {% do exceptions.column_type_missing(column_names=untyped) %}
    {%- endif -%}
    select
    {%- for column in columns.values() %}
        {{ cast('null', column['data_type']) }} as {{ column['name'] }}{{ ',' if not loop.last }}
    {%- endfor %}
{% endmacro %}
