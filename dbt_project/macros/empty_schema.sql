{#-
  dbt's own version warns that a numeric without precision may round. PostgreSQL's does not: it
  keeps every digit, which is why the marts use it.
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
