{#-
  A table of counts over stretches of time that counts anew only those in which something changed:
  as "rolled_up" does it for bars, with a query of the model's own.

  The model marks where its query may be cut to what is touched: {{ only_touched('minutes') }}
  after a relation with columns symbol and open_time. A full build leaves the mark a comment.

  Config:
      timeframe: width of a stretch; the model has its start in the column open_time.
      parent: the model it is counted from, where that one is built like this too; its cursor
          becomes ours, since of changes it has not seen we cannot have seen the effect.
-#}
{% materialization rebuilt, adapter='postgres' %}
    {%- set parent = config.get('parent') -%}
    {{ return(build_by_cursor(
        ref(parent) if parent else none,
        [make_touched_sql(config.require('timeframe'), source('ops', 'coverage_changes'))],
        'touched',
        cut_to_touched(sql),
    )) }}
{% endmaterialization %}


{% macro only_touched(relation) -%}
/* only_touched {{ relation }} */
{%- endmacro %}

{% macro cut_to_touched(query) -%}
{{ modules.re.sub(
    '/\* only_touched (\w+) \*/',
    'inner join touched on \\1.symbol = touched.symbol'
    ~ ' and \\1.open_time >= touched.from_time and \\1.open_time < touched.to_time'
    ~ ' /* in_reach \\1 */',
    query
) }}
{%- endmacro %}
