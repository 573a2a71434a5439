{#-
  Relistings: a ticker that was delisted and later used again has several listings, and no bar
  mixes minutes of two.
-#}

{#-
  SQL: creates the function that returns the first stored minute of a symbol at or after a moment.
  It is a function so that PostgreSQL plans it for the given moment; inside a view, every partition
  of the minutes would be planned. It must be parallel safe, or no query that calls it could use
  parallel workers.
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
    'Open time of the first stored minute of a symbol at or after a moment; null if there is none.'
) }}
{% endmacro %}


{#-
  SQL: whether a finer bar belongs to the last listing within its bar. It does not if it lies before
  the first minute of a later listing that begins in the same bar.

  Nearly all symbols have one listing and pass the first condition; a join would cost time for
  every row. The condition reads arrays because parallel workers cannot read a CTE.
-#}
{% macro is_of_last_listing(timeframe, finer, relistings) -%}
(
        {{ finer }}.symbol <> all (array(select relisted.symbol from {{ relistings }} as relisted))
        or not (
            array(
                select range_agg(tstzrange({{ bar_open(timeframe, 'relisted.relisted_at') }}, relisted.relisted_at))
                from {{ relistings }} as relisted
                group by relisted.symbol
                order by relisted.symbol
            )
        )[
            array_position(
                array(select distinct relisted.symbol from {{ relistings }} as relisted order by relisted.symbol),
                {{ finer }}.symbol
            )
        ] @> tstzrange({{ finer }}.open_time, {{ finer }}.next_open_time)
    )
{%- endmacro %}
