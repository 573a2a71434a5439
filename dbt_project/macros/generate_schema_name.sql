{#- Production builds straight into the schema a model names; any other target into its own. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if target.name == 'prod' -%}
        {{ (custom_schema_name or target.schema) | trim }}
    {%- elif custom_schema_name == 'marts_audit' -%}
        {{ target.schema }}_audit
    {%- else -%}
        {{ target.schema }}
    {%- endif -%}
{%- endmacro %}
