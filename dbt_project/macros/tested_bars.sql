{#-
  SQL: the bars that a data test looks at. By default those that the mart's last build wrote, so
  that the cost of testing does not grow with the history; with --vars 'tested: all' every bar.
  A mart without a cursor (built with --empty, or not by us) is looked at as a whole.
-#}
{% macro tested_bars(mart) -%}
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
{%- do exceptions.raise_compiler_error("tested: " ~ var('tested') ~ "; should be last_build or all") -%}
{%- endif -%}
{%- endmacro %}
