{#-
  Indicators of bars, in double precision. docs/indicators.md states the formulas, the seeds and
  why a run begins where it begins.

  Recursive ones are custom aggregates used as window functions (indicator_functions.sql), seeded
  as TA-Lib seeds them. Windows of a fixed length are PostgreSQL's own aggregates: in numeric with
  its inverse transitions, which are exact, else each frame anew. So a value depends on its frame
  alone.
-#}

{#- Bars of a run: a whole number of UTC days for every timeframe, so no session lies in two. -#}
{% macro run_bars() %}{% do return(1440) %}{% endmacro %}

{#- Bars read before a run: what a seed leaves behind after so many is below a double's rounding. -#}
{% macro warm_up_bars() %}{% do return(1000) %}{% endmacro %}

{#- Bars before a value that its longest window holds. -#}
{% macro window_bars() %}{% do return(199) %}{% endmacro %}

{#- Minutes of a bar; none for the calendar month. -#}
{% macro bar_minutes(timeframe) %}
    {% do return(1 if timeframe == '1m' else timeframes()[timeframe]['minutes']) %}
{% endmacro %}


{#- The columns of marts.indicators and their types; the stored ones have symbol and built_at too. -#}
{% macro indicator_columns() %}
    {%- set columns = {
        'open_time': 'timestamp with time zone',
        'next_open_time': 'timestamp with time zone',
        'is_complete': 'boolean',
    } -%}
    {%- for name in [
        'close', 'sma_20', 'sma_50', 'sma_200', 'ema_20', 'ema_50', 'rsi_14', 'macd', 'macd_signal',
        'macd_histogram', 'atr_14', 'bollinger_upper', 'bollinger_lower', 'vwap', 'obv',
        'simple_return', 'log_return', 'realised_volatility_30', 'macd_fast', 'macd_slow',
        'average_gain', 'average_loss',
    ] -%}
        {%- do columns.update({name: 'double precision'}) -%}
    {%- endfor -%}
    {% do return(columns) %}
{% endmacro %}


{#-
  A stored mart of indicators, in one line: {{ stored_indicators('1h') }}.

  Rendered, it is the query for all bars. The materialization "recursive" runs it for a full
  build, and else for the stretches that a change can have reached.
-#}
{% macro stored_indicators(timeframe) %}
    {{ config(
        materialized='recursive',
        timeframe=timeframe,
        parent=model_of(timeframe),
        tags=['analytics'],
    ) }}
    {%- set bars = ref(model_of(timeframe)) -%}
    {%- set everything -%}
        (
            select
                symbol,
                '-infinity'::timestamptz as from_time,
                'infinity'::timestamptz as to_time
            from {{ bars }}
            group by symbol
        )
    {%- endset -%}
    {{ indicators_query(
        timeframe, bars, ref('stg_market__relistings'), everything, ref('indicators').schema
    ) }}
{% endmacro %}


{#-
  SQL: indicators of the bars in given stretches.

  Args:
      bars, relistings: relations to read.
      stretches: relation (symbol, from_time, to_time), disjoint for a symbol, from bar to bar.
      schema: where the aggregates are.
      stored: mart whose row before a stretch holds the state to go on from; none begins each run
          by its warm-up. Both give the same bits.
-#}
{% macro indicators_query(timeframe, bars, relistings, stretches, schema, stored=none) %}
with
{{ indicator_bars(timeframe, bars, relistings, stretches, stored) }},

{{ indicator_values('bars_of_pieces', schema, is_resumed=stored is not none) }}

select
    symbol,
    {{ indicator_columns().keys() | join(',\n    ') }},
    now() as built_at
from indicators
{% endmacro %}


{#-
  SQL, CTEs: from the bars of pieces, ending with "indicators".

  All windows share one sort: a session is a stretch of a piece, so ordering by it first changes
  nothing else.
-#}
{% macro indicator_values(bars, schema, is_resumed=false) %}
moves as (
    select
        *,
        row_number() over in_piece as bar_number,
        lag(close) over in_piece as previous_close,
        lag(session) over in_piece as previous_session
    from {{ bars }}
    window in_piece as (partition by symbol, piece order by session, open_time)
),

changes as (
    select
        *,
        -- greatest() passes over nulls: without a bar before there is no change
        case when previous_close is not null then greatest(close - previous_close, 0) end as gain,
        case when previous_close is not null then greatest(previous_close - close, 0) end as loss,
        case
            when previous_close is not null
                then greatest(high, previous_close) - least(low, previous_close)
        end as true_range,
        -- a price of 0 is a fault of that minute, and must not end the build of all others
        ln(nullif(close, 0) / nullif(previous_close, 0)) as log_return,
        ln(nullif(close, 0) / nullif(previous_close, 0)) ^ 2 as squared_return,
        case
            -- as TA-Lib begins: the first bar counts as bought
            when session is distinct from previous_session or close > previous_close then volume
            when close < previous_close then -volume
            else 0
        end as signed_volume
    from moves
),

smoothed as (
    select
        *,
        {{ recursion(schema ~ '.ema', 'close', 20, 'ema_20', is_resumed) }} as ema_20,
        {{ recursion(schema ~ '.ema', 'close', 50, 'ema_50', is_resumed) }} as ema_50,
        {{ recursion(schema ~ '.ema', 'close', 26, 'macd_slow', is_resumed) }} as macd_slow,
        -- TA-Lib seeds it with the 12 closes that end where the slow one's seed ends
        {{ recursion(
            schema ~ '.ema', 'case when bar_number > 14 then close end', 12, 'macd_fast', is_resumed
        ) }} as macd_fast,
        {{ recursion(schema ~ '.wilder', 'gain', 14, 'average_gain', is_resumed) }} as average_gain,
        {{ recursion(schema ~ '.wilder', 'loss', 14, 'average_loss', is_resumed) }} as average_loss,
        {{ recursion(schema ~ '.wilder', 'true_range', 14, 'atr_14', is_resumed) }} as atr_14,
        -- exact sums, so that the bar that leaves a frame can be subtracted
        (sum(price) over (in_piece rows 19 preceding))::double precision / 20 as mean_20,
        sqrt((
            20 * sum(price * price) over (in_piece rows 19 preceding)
            - (sum(price) over (in_piece rows 19 preceding))
            * (sum(price) over (in_piece rows 19 preceding))
        )::double precision) / 20 as deviation_20,
        (sum(price) over (in_piece rows 49 preceding))::double precision / 50 as mean_50,
        (sum(price) over (in_piece rows 199 preceding))::double precision / 200 as mean_200,
        case
            when count(squared_return) over (in_piece rows 29 preceding) = 30
                then sum(squared_return) over (in_piece rows 29 preceding) / 30
        end as mean_square_30,
        sum(signed_volume) over in_session as session_obv,
        (sum(quote_volume) over in_session)::double precision as session_quote_volume,
        (sum(volume) over in_session)::double precision as session_volume
    from changes
    window
        in_piece as (partition by symbol, piece order by session, open_time),
        in_session as (
            partition by symbol, piece, session order by open_time rows unbounded preceding
        )
),

signalled as (
    select
        *,
        {{ recursion(schema ~ '.ema', 'macd_fast - macd_slow', 9, 'macd_signal', is_resumed) }}
            as macd_signal
    from smoothed
    window in_piece as (partition by symbol, piece order by session, open_time)
),

indicators as (
    select
        symbol,
        open_time,
        next_open_time,
        is_complete,
        close,
        case when bar_number >= 20 then mean_20 end as sma_20,
        case when bar_number >= 50 then mean_50 end as sma_50,
        case when bar_number >= 200 then mean_200 end as sma_200,
        ema_20,
        ema_50,
        case
            -- nothing has moved for some 500 bars: what is left is of moves before the warm-up
            when average_gain + average_loss >= 1e-20 * close
                then 100 * (average_gain / nullif(average_gain + average_loss, 0))
        end as rsi_14,
        case when macd_signal is not null then macd_fast - macd_slow end as macd,
        macd_signal,
        macd_fast - macd_slow - macd_signal as macd_histogram,
        atr_14,
        case when bar_number >= 20 then mean_20 + 2 * deviation_20 end as bollinger_upper,
        case when bar_number >= 20 then mean_20 - 2 * deviation_20 end as bollinger_lower,
        case
            when is_intraday then session_quote_volume / nullif(session_volume, 0)
            else quote_volume::double precision / nullif(volume::double precision, 0)
        end as vwap,
        session_obv::double precision as obv,
        close / nullif(previous_close, 0) - 1 as simple_return,
        log_return,
        case when bar_number > 30 then sqrt(mean_square_30 * bars_per_year) end
            as realised_volatility_30,
        macd_fast,
        macd_slow,
        average_gain,
        average_loss
    from signalled
    where is_asked
)
{% endmacro %}


{#-
  SQL: a recursive average over the bars of a piece. A piece that goes on from a stored row takes
  that row's state as an average of one bar, and nothing of the bars before it.
-#}
{% macro recursion(aggregate, value, bars, state, is_resumed) -%}
{%- if is_resumed -%}
{{ aggregate }}(
            case when is_carried then carried_{{ state }} when goes_on then {{ value }} end,
            case when is_carried then 1 else {{ bars }} end
        ) over (in_piece rows unbounded preceding)
{%- else -%}
{{ aggregate }}({{ value }}, {{ bars }}) over (in_piece rows unbounded preceding)
{%- endif -%}
{%- endmacro %}
