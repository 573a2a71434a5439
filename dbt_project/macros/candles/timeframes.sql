{#-
  Every timeframe above one minute: its width, and the next finer timeframe that divides it, from
  which it is rolled up. A calendar month has no width. A test compares this table with TIMEFRAMES
  in include/domain/timeframes.py.
-#}
{% macro timeframes() %}
    {% do return({
        '3m': {'minutes': 3, 'parent': '1m'},
        '5m': {'minutes': 5, 'parent': '1m'},
        '15m': {'minutes': 15, 'parent': '5m'},
        '30m': {'minutes': 30, 'parent': '15m'},
        '1h': {'minutes': 60, 'parent': '30m'},
        '2h': {'minutes': 120, 'parent': '1h'},
        '4h': {'minutes': 240, 'parent': '2h'},
        '6h': {'minutes': 360, 'parent': '2h'},
        '8h': {'minutes': 480, 'parent': '4h'},
        '12h': {'minutes': 720, 'parent': '6h'},
        '1d': {'minutes': 1440, 'parent': '12h'},
        '3d': {'minutes': 4320, 'parent': '1d'},
        '1w': {'minutes': 10080, 'parent': '1d'},
        '1M': {'minutes': none, 'parent': '1d'},
    }) %}
{% endmacro %}


{#- The model of a timeframe's bars. The table of 1M is 1mo: 1M and 1m differ only in case. -#}
{% macro model_of(timeframe) %}
    {% if timeframe == '1m' %}
        {% do return('stg_market__candles_1m') %}
    {% endif %}
    {% do return('candles_' ~ ('1mo' if timeframe == '1M' else timeframe)) %}
{% endmacro %}


{#-
  SQL: open time of the bar that contains a moment, in UTC for every session time zone. The origin
  is a Monday; it fits every recorded 3d and 1w bar of the exchange.
-#}
{% macro bar_open(timeframe, moment) -%}
    {%- set minutes = timeframes()[timeframe]['minutes'] -%}
    {%- if minutes is none -%}
        date_trunc('month', {{ moment }}, 'UTC')
    {%- else -%}
        date_bin('{{ minutes }} minutes', {{ moment }}, '2001-01-01 00:00:00+00')
    {%- endif -%}
{%- endmacro %}


{#-
  SQL: open time of the next bar. Widths are in minutes, because interval '1 day' is 23 or 25 hours
  long in session time zones with daylight saving time.
-#}
{% macro next_bar_open(timeframe, open_time) -%}
    {%- set minutes = timeframes()[timeframe]['minutes'] -%}
    {%- if minutes is none -%}
        ({{ open_time }} at time zone 'UTC' + interval '1 month') at time zone 'UTC'
    {%- else -%}
        {{ open_time }} + interval '{{ minutes }} minutes'
    {%- endif -%}
{%- endmacro %}


{#- SQL: end of the last bar that overlaps a time range. -#}
{% macro end_of_last_bar(timeframe, range) -%}
    {%- set last = (
        "upper(" ~ range ~ ") - case when upper_inc(" ~ range ~ ")"
        ~ " then interval '0' else interval '1 microsecond' end"
    ) -%}
    {{ next_bar_open(timeframe, bar_open(timeframe, last)) }}
{%- endmacro %}


{#- SQL, for FROM: the open times of all bars between the start of one bar and the end of another. -#}
{% macro bar_opens(timeframe, from_time, to_time) -%}
    {%- set minutes = timeframes()[timeframe]['minutes'] -%}
    {%- if minutes is none -%}
        (
            select months.first_day at time zone 'UTC'
            from generate_series(
                {{ from_time }} at time zone 'UTC',
                {{ to_time }} at time zone 'UTC' - interval '1 microsecond',
                interval '1 month'
            ) as months (first_day)
        )
    {%- else -%}
        generate_series(
            {{ from_time }}, {{ to_time }} - interval '1 microsecond', interval '{{ minutes }} minutes'
        )
    {%- endif -%}
{%- endmacro %}
