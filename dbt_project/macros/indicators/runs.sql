{#-
  Where the recursion of an indicator starts.

  A fixed time grid divides the bars of a listing into runs of run_bars(). The recursion of a run
  starts warm_up_bars() bars before the run, or at the listing's first bar. A value therefore does
  not depend on the requested range or on the history of builds, and a change affects only runs
  whose warm-up contains it.
-#}

{#- Bars of a run: whole UTC days for every timeframe, so that no session spans two runs. -#}
{% macro run_bars() %}{% do return(1440) %}{% endmacro %}

{#- Bars read before a run; after these the influence of the seed is below double precision. -#}
{% macro warm_up_bars() %}{% do return(1000) %}{% endmacro %}

{#- Earlier bars in the longest window of a value. -#}
{% macro window_bars() %}{% do return(199) %}{% endmacro %}

{#- Minutes of a bar; none for the calendar month. -#}
{% macro bar_minutes(timeframe) %}
    {% do return(1 if timeframe == '1m' else timeframes()[timeframe]['minutes']) %}
{% endmacro %}

{#- SQL: start of the run that contains a moment. All months form one run. -#}
{% macro run_start(timeframe, moment) -%}
    {%- set minutes = bar_minutes(timeframe) -%}
    {%- if minutes is none -%}
        '2001-01-01 00:00:00+00'::timestamptz
    {%- else -%}
        date_bin('{{ minutes * run_bars() }} minutes', {{ moment }}, '2001-01-01 00:00:00+00')
    {%- endif -%}
{%- endmacro %}


{#- SQL: start of the next run after a moment. -#}
{% macro next_run_start(timeframe, moment) -%}
    {%- set minutes = bar_minutes(timeframe) -%}
    {%- if minutes is none -%}
        'infinity'::timestamptz
    {%- else -%}
        {{ run_start(timeframe, moment) }} + interval '{{ minutes * run_bars() }} minutes'
    {%- endif -%}
{%- endmacro %}


{#- SQL: start of the session of a bar: its UTC day, or its year for bars of a day and longer. -#}
{% macro session_start(timeframe, open_time) -%}
date_trunc('{{ "day" if is_intraday(timeframe) else "year" }}', {{ open_time }}, 'UTC')
{%- endmacro %}

{% macro is_intraday(timeframe) %}
    {% do return((bar_minutes(timeframe) or 43800) < 1440) %}
{% endmacro %}

{#- Bars in a year of 365 days; the markets never close. -#}
{% macro bars_per_year(timeframe) %}
    {% do return(525600 / (bar_minutes(timeframe) or 43800)) %}
{% endmacro %}

{#- SQL: open time of the first bar of a listing. -#}
{% macro listing_open(timeframe, relisted_at) -%}
    {%- if timeframe == '1m' -%}{{ relisted_at }}{%- else -%}{{ bar_open(timeframe, relisted_at) }}{%- endif -%}
{%- endmacro %}


{#-
  SQL: creates the temporary table ranges (symbol, from_time, to_time): the bars that the changes in
  "touched" can affect, from the first touched bar to the end of the last run whose warm-up contains
  it or would contain it.
-#}
{% macro make_reached_ranges_sql(timeframe, bars) %}
    create temporary table ranges on commit drop as
    with reached as (
        select
            touched.symbol,
            touched.from_time,
            coalesce(
                (
                    select {{ next_run_start(timeframe, 'bar.open_time') }} from {{ bars }} as bar
                    where bar.symbol = touched.symbol and bar.open_time >= touched.to_time
                    order by bar.open_time
                    offset {{ warm_up_bars() - 1 }} limit 1
                ),
                'infinity'
            ) as to_time
        from touched
    ),

    united as (
        select
            symbol,
            unnest(range_agg(tstzrange(from_time, to_time))) as reached_range
        from reached
        group by symbol
    )

    select
        symbol,
        lower(reached_range) as from_time,
        upper(reached_range) as to_time
    from united;
    analyze ranges
{% endmacro %}


{#-
  SQL, CTEs: the bars that are needed for ranges; the last CTE is "bars_of_pieces". A piece is the
  part of a range within one run and listing, preceded by the earlier bars that its values need.
-#}
{% macro indicator_bars(timeframe, bars, relistings, ranges, stored=none) %}
{%- set listing_open = listing_open(timeframe, 'relisting.relisted_at') -%}
finite as (
    select
        wanted.symbol,
        greatest(wanted.from_time, ends.first_open) as from_time,
        least(wanted.to_time, ends.end_of_last) as to_time
    from {{ ranges }} as wanted
    cross join lateral (
        select
            (
                select bar.open_time from {{ bars }} as bar
                where bar.symbol = wanted.symbol
                order by bar.open_time limit 1
            ) as first_open,
            (
                select bar.next_open_time from {{ bars }} as bar
                where bar.symbol = wanted.symbol
                order by bar.open_time desc limit 1
            ) as end_of_last
    ) as ends
    where
        wanted.from_time < ends.end_of_last
        and wanted.to_time > ends.first_open
),

cuts as (
    select
        symbol,
        from_time as range_start,
        to_time,
        from_time as cut
    from finite
    {%- if bar_minutes(timeframe) is not none %}
    union
    select
        finite.symbol,
        finite.from_time,
        finite.to_time,
        run.starts_at
    from finite
    cross join lateral generate_series(
        {{ next_run_start(timeframe, 'finite.from_time') }},
        finite.to_time - interval '1 microsecond',
        interval '{{ bar_minutes(timeframe) * run_bars() }} minutes'
    ) as run (starts_at)
    {%- endif %}
    union
    select
        finite.symbol,
        finite.from_time,
        finite.to_time,
        {{ listing_open }}
    from finite
    inner join {{ relistings }} as relisting
        on
            finite.symbol = relisting.symbol
            and {{ listing_open }} > finite.from_time
            and {{ listing_open }} < finite.to_time
),

pieces as (
    select
        symbol,
        cut as from_time,
        lead(cut, 1, to_time) over (partition by symbol, range_start order by cut) as to_time,
        {{ run_start(timeframe, 'cut') }} as run_from,
        coalesce(
            (
                select max({{ listing_open }}) from {{ relistings }} as relisting
                where relisting.symbol = cuts.symbol and {{ listing_open }} <= cuts.cut
            ),
            '-infinity'
        ) as listing_from
    from cuts
),

{% if stored is not none -%}
resumed as (
    select
        pieces.*,
        last_row.open_time as carried_at
    from pieces
    left join lateral (
        select
            stored.open_time,
            stored.ema_50
        from {{ stored }} as stored
        where
            stored.symbol = pieces.symbol
            and stored.open_time < pieces.from_time
            and stored.open_time >= greatest(pieces.run_from, pieces.listing_from)
        order by stored.open_time desc limit 1
    ) as last_row
        -- ema_50 has the longest warm-up; if it is present, every state is.
        on last_row.ema_50 is not null
),
{%- endif %}

-- Materialized: computed once per piece, not once per bar that it is joined with.
reads as materialized (
    select
        piece.*,
        {% if stored is not none -%}
        case
            when piece.carried_at is not null
                then least(
                    greatest({{ session_start(timeframe, 'piece.from_time') }}, piece.listing_from),
                    {{ open_time_before(bars, 'piece.from_time', window_bars()) }}
                )
            else {{ open_time_before(bars, 'piece.run_from', warm_up_bars()) }}
        end as reads_from
    from resumed as piece
        {%- else -%}
        {{ open_time_before(bars, 'piece.run_from', warm_up_bars()) }} as reads_from
    from pieces as piece
        {%- endif %}
),

bars_of_pieces as (
    select
        piece.symbol,
        piece.from_time as piece,
        bar.open_time,
        bar.next_open_time,
        bar.is_complete,
        bar.high::double precision as high,
        bar.low::double precision as low,
        bar.close::double precision as close,
        bar.close as price,
        bar.volume,
        bar.quote_volume,
        contract.contract_size,
        {{ session_start(timeframe, 'bar.open_time') }} as session,
        {{ is_intraday(timeframe) }} as is_intraday,
        {{ bars_per_year(timeframe) }}::double precision as bars_per_year,
        {%- if stored is not none %}
        bar.open_time = piece.carried_at as is_carried,
        bar.open_time > coalesce(piece.carried_at, '-infinity') as continues,
        {%- for state in [
            'ema_20', 'ema_50', 'macd_slow', 'macd_fast', 'macd_signal', 'average_gain', 'average_loss',
            'atr_14'
        ] %}
        carried.{{ state }} as carried_{{ state }},
        {%- endfor %}
        {%- endif %}
        bar.open_time >= piece.from_time as is_requested
    from reads as piece
    -- Once for each piece, not for each bar.
    cross join lateral (
        select market.contract_size_of(piece.symbol) as contract_size offset 0
    ) as contract
    inner join {{ bars }} as bar
        on
            piece.symbol = bar.symbol
            and piece.reads_from <= bar.open_time
            and piece.to_time > bar.open_time
    {%- if stored is not none %}
    left join {{ stored }} as carried
        on
            piece.symbol = carried.symbol
            and piece.carried_at = carried.open_time
            and bar.open_time = carried.open_time
    {%- endif %}
)
{%- endmacro %}


{#- SQL: open time of the n-th bar of the piece's listing before a moment, or the listing's start. -#}
{% macro open_time_before(bars, moment, count) -%}
coalesce(
            (
                select bar.open_time from {{ bars }} as bar
                where
                    bar.symbol = piece.symbol
                    and bar.open_time < {{ moment }}
                    and bar.open_time >= piece.listing_from
                order by bar.open_time desc
                offset {{ count - 1 }} limit 1
            ),
            piece.listing_from
        )
{%- endmacro %}
