{#-
  A mart of values that depend on the bars before theirs: like "rolled_up" in one transaction and
  by its parent's cursor, but a change is followed forward as far as it reaches.

  Each stretch goes on from the state in the row before it. Built in full in the same cases, with
  the same bits.
-#}
{% materialization recursive, adapter='postgres' %}
    {%- set timeframe = config.require('timeframe') -%}
    {%- set parent = ref(config.require('parent')) -%}
    {%- set query = indicators_query(
        timeframe,
        parent,
        ref('stg_market__relistings'),
        'stretches',
        ref('indicators').schema,
        stored=this.incorporate(type='table'),
    ) -%}
    {{ return(build_by_cursor(
        parent, [make_touched_sql(timeframe), make_stretches_sql(timeframe, parent)], 'stretches', query,
    )) }}
{% endmaterialization %}
