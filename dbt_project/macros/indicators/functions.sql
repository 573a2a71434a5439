{#-
  SQL functions of schema marts: aggregates for recursive averages, and marts.indicators.

  dbt's resource type "functions" supports only scalar functions on PostgreSQL. These functions are
  therefore a model with the materialization sql_functions, and models that use them refer to it.
-#}

{% macro indicators_function() %}
    {{ config(materialized='sql_functions', tags=['analytics']) }}
    {%- set schema = this.schema -%}
    {{ recursive_average_sql(
        schema, 'ema', 'state[2] + (value - state[2]) * (2::double precision / (bars + 1))',
        'Exponential moving average over n bars: weight 2/(n+1), seeded with the mean of the first n. '
        ~ 'As a window function: ema(close, 20) OVER (PARTITION BY symbol ORDER BY open_time).'
    ) }}
    {{ recursive_average_sql(
        schema, 'wilder', '(state[2] * (bars - 1) + value) / bars',
        'Wilder''s moving average over n bars: weight 1/n, seeded with the mean of the first n.'
    ) }}
    {{ bars_function_sql(schema) }}
    {{ indicators_function_sql(schema) }}
{% endmacro %}


{#-
  SQL: a recursive average as an aggregate (value double precision, bars integer). It ignores nulls
  and is null until there are as many values as bars.

  The state is {weight, value, count}; the weight is 0 while the seed is summed and 1 afterwards.
  The final function of PostgreSQL's avg() computes value / weight, and null for weight 0, which
  saves a PL/pgSQL call per row.
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
'Transition function of the aggregate {{ schema }}.{{ name }}.';
{% endmacro %}


{#- SQL: the function that reads the bars for marts.indicators, of any timeframe. -#}
{% macro bars_function_sql(schema) %}
-- Internal, so users should not depend on it; PostgreSQL cannot replace its columns in place.
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
    contract_size numeric,
    session timestamptz,
    is_intraday boolean,
    bars_per_year double precision,
    is_requested boolean
)
language plpgsql stable parallel safe rows 2000
as $function$
#variable_conflict use_column
begin
    {%- for timeframe in ['1m'] + timeframes().keys() | list %}
    {{ 'if' if loop.first else 'elsif' }} timeframe = '{{ timeframe }}' then
        return query
        with
        requested as (
            select
                indicator_bars.symbol collate "C" as symbol,
                indicator_bars.from_time as from_time,
                indicator_bars.to_time as to_time
        ),

        {{ indicator_bars(
            timeframe,
            local(ref(model_of(timeframe))),
            local(ref('stg_market__relistings')),
            'requested',
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
            contract_size,
            session,
            is_intraday,
            bars_per_year,
            is_requested
        from bars_of_pieces;
    {%- endfor %}
    end if;
end
$function$;
comment on function {{ schema }}.indicator_bars(text, text, timestamptz, timestamptz) is
'Internal: the requested bars and the earlier ones that {{ schema }}.indicators needs.';
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
            'unknown timeframe %s; must be one of 1m, {{ timeframes().keys() | join(", ") }}',
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
