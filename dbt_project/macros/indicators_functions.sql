{#-
  The functions of schema marts: aggregates for recursive averages, and marts.indicators.

  dbt's own resource "functions" knows only scalar ones on PostgreSQL, so these are a model with a
  materialization of its own; what reads them refers to it.
-#}

{% macro indicators_function() %}
    {{ config(materialized='sql_functions', tags=['analytics']) }}
    {%- set schema = this.schema -%}
    {{ recursive_average_sql(
        schema, 'ema', 'state[2] + (value - state[2]) * (2::double precision / (bars + 1))',
        'Exponential moving average of n bars: weight 2/(n+1), seeded by the mean of the first n. '
        ~ 'As a window function: ema(close, 20) OVER (PARTITION BY symbol ORDER BY open_time).'
    ) }}
    {{ recursive_average_sql(
        schema, 'wilder', '(state[2] * (bars - 1) + value) / bars',
        'Average of n bars smoothed as Wilder does: weight 1/n, seeded by the mean of the first n.'
    ) }}
    {{ bars_function_sql(schema) }}
    {{ indicators_function_sql(schema) }}
{% endmacro %}


{#-
  SQL: a recursive average as an aggregate (value double precision, bars integer). Nulls are
  passed over; until there are as many values as bars, it is null.

  The state is {weight, value, count}: weight 0 while the seed is being summed, then 1. So
  PostgreSQL's own final function of avg(), which is value / weight and null without weight, ends
  it without another call of PL/pgSQL for every row.
-#}
{% macro recursive_average_sql(schema, name, step, description) %}
create or replace function {{ schema }}.{{ name }}_step(
    state double precision [], value double precision, bars integer
) returns double precision []
language plpgsql immutable strict parallel safe
as $step$
begin
    if state[1] = 1 then
        return array[1, {{ step }}, 0];
    elsif state[3] + 1 = bars then
        return array[1, (state[2] + value) / bars, 0];
    end if;
    return array[0, state[2] + value, state[3] + 1];
end
$step$;
create or replace aggregate {{ schema }}.{{ name }}(value double precision, bars integer) (
    sfunc = {{ schema }}.{{ name }}_step,
    stype = double precision [],
    finalfunc = pg_catalog.float8_avg,
    initcond = '{0,0,0}',
    parallel = safe
);
comment on aggregate {{ schema }}.{{ name }}(double precision, integer) is '{{ description }}';
comment on function {{ schema }}.{{ name }}_step(double precision [], double precision, integer) is
'Transition of the aggregate {{ schema }}.{{ name }}.';
{% endmacro %}


{#- SQL: the bars that marts.indicators reads, of any timeframe. -#}
{% macro bars_function_sql(schema) %}
-- nothing of others is to depend on it, and PostgreSQL cannot replace it by other columns
drop function if exists {{ schema }}.indicator_bars(text, text, timestamptz, timestamptz);
create function {{ schema }}.indicator_bars(
    symbol text, timeframe text, from_time timestamptz, to_time timestamptz
) returns table (
    piece timestamptz,
    open_time timestamptz,
    next_open_time timestamptz,
    is_complete boolean,
    high double precision,
    low double precision,
    close double precision,
    price numeric,
    volume numeric,
    quote_volume numeric,
    session timestamptz,
    is_intraday boolean,
    bars_per_year double precision,
    is_asked boolean
)
language plpgsql stable parallel safe rows 2000
as $function$
#variable_conflict use_column
begin
    {%- for timeframe in ['1m'] + timeframes().keys() | list %}
    {{ 'if' if loop.first else 'elsif' }} timeframe = '{{ timeframe }}' then
        return query
        with
        asked as (
            select
                indicator_bars.symbol collate "C" as symbol,
                indicator_bars.from_time as from_time,
                indicator_bars.to_time as to_time
        ),

        {{ indicator_bars(
            timeframe,
            ref(model_of(timeframe)).render(),
            ref('stg_market__relistings').render(),
            'asked',
        ) }}

        select
            piece,
            open_time,
            next_open_time,
            is_complete,
            high,
            low,
            close,
            price,
            volume,
            quote_volume,
            session,
            is_intraday,
            bars_per_year,
            is_asked
        from bars_of_pieces;
    {%- endfor %}
    end if;
end
$function$;
comment on function {{ schema }}.indicator_bars(text, text, timestamptz, timestamptz) is
'Bars that {{ schema }}.indicators reads: those asked for, and those before them.';
{% endmacro %}


{% macro indicators_function_sql(schema) %}
{%- set columns = [] -%}
{%- for name, type in indicator_columns().items() -%}
    {%- do columns.append(name ~ ' ' ~ type) -%}
{%- endfor %}
create or replace function {{ schema }}.indicators(
    symbol text,
    timeframe text,
    from_time timestamptz default '-infinity',
    to_time timestamptz default 'infinity'
) returns table (
    {{ columns | join(',\n    ') }}
)
language plpgsql stable parallel safe rows 500
as $function$
#variable_conflict use_column
begin
    if (timeframe in ('{{ timeframes().keys() | join("', '") }}', '1m')) is not true then
        raise invalid_parameter_value using message = format(
            'unknown timeframe %s; should be one of 1m, {{ timeframes().keys() | join(", ") }}',
            coalesce(quote_literal(timeframe), 'null')
        );
    end if;
    return query
    with
    bars_of_pieces as (
        select
            indicators.symbol as symbol,
            *
        from {{ schema }}.indicator_bars(
            indicators.symbol, indicators.timeframe, indicators.from_time, indicators.to_time
        )
    ),

    {{ indicator_values('bars_of_pieces', schema) }}

    select
        {{ indicator_columns().keys() | join(',\n        ') }}
    from indicators
    order by open_time;
end
$function$;
{% endmacro %}


{#-
  A model that creates functions: its SQL replaces them in place, and only where it differs from
  what was run last, so that plans of sessions that use them stay. Its name is one of them, whose
  comment holds the digest. Two builds wait for each other. Functions whose result changes its
  columns are dropped first, with what depends on them, as PostgreSQL cannot replace them.
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
