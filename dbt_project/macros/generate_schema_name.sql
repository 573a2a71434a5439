{#-
  Production builds straight into the schema a model names; any other target into its own.

  A target that is named production's schema by mistake (CANDELABRA_DBT_DEV_SCHEMA=marts) would
  replace its marts under cursors of its own, and production's next build would take for built
  what the other one left: refused, whatever dbt was asked to do.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if target.name == 'prod' -%}
        {{ (custom_schema_name or target.schema) | trim }}
    {%- elif target.schema | lower in ['marts', 'marts_audit', 'bi', 'market', 'ops', 'public'] -%}
        {% do exceptions.raise_compiler_error(
            "target " ~ target.name ~ " would build into " ~ target.schema ~ ", which is production's: "
            ~ "give it a schema of its own (CANDELABRA_DBT_DEV_SCHEMA)"
        ) %}
    {%- elif custom_schema_name == 'marts_audit' -%}
        {{ target.schema }}_audit
    {%- else -%}
        {{ target.schema }}
    {%- endif -%}
{%- endmacro %}
