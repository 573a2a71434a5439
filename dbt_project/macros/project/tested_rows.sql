{#-
  SQL: the rows that a data test checks. By default those of the mart's last build, so that the
  cost of a test does not grow with the history; --vars 'tested: all' checks every row. All rows
  of a mart without a cursor are checked.
-#}
{% macro tested_rows(mart) -%}
{%- if var('tested') == 'all' -%}
{{ mart }}
{%- elif var('tested') == 'last_build' -%}
{{ mart }} as mart
    where
        mart.built_at >= coalesce(
            (
                select built_at from {{ source('ops', 'build_cursors') }}
                where relation = '{{ cursor_name(mart) }}' and target = '{{ target.name }}'
            ),
            '-infinity'
        )
{%- else -%}
{%- do exceptions.raise_compiler_error("tested: " ~ var('tested') ~ "; must be last_build or all") -%}
{%- endif -%}
{%- endmacro %}
