{#-
  Indicators of bars, in double precision. docs/indicators.md has the formulas and seeds.

  Recursive averages are custom aggregates used as window functions (functions.sql) with TA-Lib's
  seeds. Windows of a fixed length use PostgreSQL's aggregates: numeric has exact inverse
  transitions; in double precision each frame is computed from scratch. A value therefore depends
  only on its frame.
-#}

{#- Columns of marts.indicators with their types; stored indicators also have symbol and built_at. -#}
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
  A mart of stored indicators in one line: {{ stored_indicators('1h') }}.

  The model's own SQL selects all bars, for a full build. The materialization "recursive" restricts
  it to the ranges that a change can affect.
-#}
{% macro stored_indicators(timeframe) %}
    {{ config(
        materialized='recursive',
        timeframe=timeframe,
        parent=model_of(timeframe),
        tags=['analytics'],
    ) }}
    {%- set bars = ref(model_of(timeframe)) -%}
    {%- set all_bars -%}
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
        timeframe, bars, ref('stg_market__relistings'), all_bars, ref('indicators').schema
    ) }}
{% endmacro %}


{#-
  SQL: indicators of the bars in given ranges.

  Args:
      bars, relistings: relations to read.
      ranges: relation (symbol, from_time, to_time) of whole bars, disjoint for each symbol.
      schema: schema of the aggregates.
      stored: mart whose row before a range has the state to continue from; none starts each run
          with its warm-up. Both give the same bits.
-#}
{% macro indicators_query(timeframe, bars, relistings, ranges, schema, stored=none) %}
with
{{ indicator_bars(timeframe, bars, relistings, ranges, stored) }},

{{ indicator_values('bars_of_pieces', schema, is_resumed=stored is not none) }}

select
    symbol,
    {{ indicator_columns().keys() | join(',\n    ') }},
    now() as built_at
from indicators
{% endmacro %}


{#-
  SQL, CTEs: computes indicators from the bars of pieces; the last CTE is "indicators".

  All windows share one sort: sessions are consecutive within a piece, so ordering by session first
  does not change the order of the bars.
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
        -- greatest() ignores nulls, so the first bar needs an explicit null.
        case when previous_close is not null then greatest(close - previous_close, 0) end as gain,
        case when previous_close is not null then greatest(previous_close - close, 0) end as loss,
        case
            when previous_close is not null
                then greatest(high, previous_close) - least(low, previous_close)
        end as true_range,
        -- A price of 0 is a fault of one minute and must not fail the whole build.
        ln(nullif(close, 0) / nullif(previous_close, 0)) as log_return,
        ln(nullif(close, 0) / nullif(previous_close, 0)) ^ 2 as squared_return,
        case
            -- As in TA-Lib, the first bar counts as bought.
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
        -- TA-Lib seeds it with the last 12 closes of the slow average's seed.
        {{ recursion(
            schema ~ '.ema', 'case when bar_number > 14 then close end', 12, 'macd_fast', is_resumed
        ) }} as macd_fast,
        {{ recursion(schema ~ '.wilder', 'gain', 14, 'average_gain', is_resumed) }} as average_gain,
        {{ recursion(schema ~ '.wilder', 'loss', 14, 'average_loss', is_resumed) }} as average_loss,
        {{ recursion(schema ~ '.wilder', 'true_range', 14, 'atr_14', is_resumed) }} as atr_14,
        -- Exact sums, from which PostgreSQL can subtract the bar that leaves the frame.
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
            -- No price moved for about 500 bars: the rest stems from before the warm-up.
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
            -- COIN-M: volume counts contracts, quote volume the base asset.
            when contract_size is not null
                then contract_size::double precision
                    * case when is_intraday then session_volume else volume::double precision end
                    / nullif(
                        case
                            when is_intraday then session_quote_volume
                            else quote_volume::double precision
                        end,
                        0
                    )
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
    where is_requested
)
{% endmacro %}


{#-
  SQL: a recursive average over the bars of a piece. A piece that continues from a stored row uses
  that row's state as an average of one bar and ignores earlier bars.
-#}
{% macro recursion(aggregate, value, bars, state, is_resumed) -%}
{%- if is_resumed -%}
{{ aggregate }}(
            case when is_carried then carried_{{ state }} when continues then {{ value }} end,
            case when is_carried then 1 else {{ bars }} end
        ) over (in_piece rows unbounded preceding)
{%- else -%}
{{ aggregate }}({{ value }}, {{ bars }}) over (in_piece rows unbounded preceding)
{%- endif -%}
{%- endmacro %}
