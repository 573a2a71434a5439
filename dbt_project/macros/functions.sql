{#-
  Functions of the staging views and the live views. What one reads is planned when it is called, for
  the time it is called with: as part of a view, every partition of the minutes would be planned
  whatever is asked.
-#}

{#- SQL: makes a function that returns at most one bar of a symbol, unless it is there as wanted. -#}
{% macro make_bar_function(function, body, plans, comment) %}
{%- set result = (
    "TABLE(open_time timestamp with time zone, next_open_time timestamp with time zone,"
    ~ " open numeric, high numeric, low numeric, close numeric, volume numeric,"
    ~ " quote_volume numeric, trade_count bigint, taker_buy_volume numeric,"
    ~ " taker_buy_quote_volume numeric, first_trade_id bigint, last_trade_id bigint,"
    ~ " minute_count integer, is_complete boolean, is_closed boolean,"
    ~ " built_at timestamp with time zone)"
) -%}
{{ make_function(function, 'bar_open', result ~ ' rows 1', body, plans, comment) }}
{% endmacro %}


{#-
  SQL: makes the function that tells the first stored minute of a symbol from a moment on. Parallel
  workers may call it: else none could read anything in a query that has it.
-#}
{% macro make_first_minute() %}
{%- set body -%}
begin
    return (
        select stored.open_time from {{ local(source('market', 'candles_1m')) }} as stored
        where
            stored.symbol = of_symbol
            and stored.open_time >= date_bin('1 minute', moment, '2001-01-01 00:00:00+00')
        order by stored.open_time limit 1
    );
end
{%- endset -%}
{{ make_function(
    this.schema ~ '.first_minute',
    'moment',
    'timestamp with time zone parallel safe',
    body,
    'auto',
    'Open time of the first stored minute of a symbol from a moment on, or null.'
) }}
{% endmacro %}


{#-
  SQL: makes a function of a symbol and a time, unless it is there as wanted.

  Args:
      argument: name of the time.
      result: its type, and what else stands before the body.
      plans: plan_cache_mode.
-#}
{% macro make_function(function, argument, result, body, plans, comment) %}
{%- set type = result | replace(' rows 1', '') | replace(' parallel safe', '') -%}
do $make$
declare
    body text := $body$
{{ body }}
$body$;
    settings text[] := array['search_path=pg_catalog, pg_temp', 'plan_cache_mode={{ plans }}'];
    definition text := $create$
        create or replace function {{ function }}(of_symbol text, {{ argument }} timestamptz)
        returns {{ result }}
        language plpgsql stable strict security definer
        set search_path = pg_catalog, pg_temp
        set plan_cache_mode = {{ plans }}
        as %L
    $create$;
begin
    -- models are built side by side, and two of them must not make the same function
    perform pg_advisory_xact_lock(hashtextextended('candelabra {{ function }}', 0));
    if exists (
        select from pg_proc
        where
            oid = to_regprocedure('{{ function }}(text, timestamptz)')
            and prosrc = body
            and proconfig = settings
            and pg_get_function_result(oid) = '{{ type }}'
    ) then
        return;
    end if;
    begin
        execute format(definition, body);
    exception when invalid_function_definition then
        -- other columns: the view over the old ones is made anew after this
        drop function {{ function }}(text, timestamptz) cascade;
        execute format(definition, body);
    end;
    comment on function {{ function }}(text, timestamptz) is '{{ comment }}';
end
$make$
{% endmacro %}
