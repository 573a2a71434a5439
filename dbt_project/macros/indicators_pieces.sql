{#-
  Where the recursion of an indicator begins.

  The bars of a listing are cut on a grid of time into runs of run_bars(). A run's recursion
  begins warm_up_bars() bars before the run, at the listing's first bar if there are fewer. So the
  value of a bar depends on neither what was asked for nor what was built when, and a change
  reaches no further than the runs whose warm-up holds it.
-#}

{#- SQL: start of the run that holds a moment. All months are one run. -#}
{% macro run_start(timeframe, moment) -%}
    {%- set minutes = bar_minutes(timeframe) -%}
    {%- if minutes is none -%}
        '2001-01-01 00:00:00+00'::timestamptz
    {%- else -%}
        date_bin('{{ minutes * run_bars() }} minutes', {{ moment }}, '2001-01-01 00:00:00+00')
    {%- endif -%}
{%- endmacro %}


{#- SQL: start of the run after the one that holds a moment. -#}
{% macro next_run_start(timeframe, moment) -%}
    {%- set minutes = bar_minutes(timeframe) -%}
    {%- if minutes is none -%}
        'infinity'::timestamptz
    {%- else -%}
        {{ run_start(timeframe, moment) }} + interval '{{ minutes * run_bars() }} minutes'
    {%- endif -%}
{%- endmacro %}


{#- SQL: start of the session that holds a bar: its UTC day; its year if it is a day or longer. -#}
{% macro session_start(timeframe, open_time) -%}
date_trunc('{{ "day" if is_intraday(timeframe) else "year" }}', {{ open_time }}, 'UTC')
{%- endmacro %}

{% macro is_intraday(timeframe) %}
    {% do return((bar_minutes(timeframe) or 43800) < 1440) %}
{% endmacro %}

{#- Bars in a year of 365 days, in which no market closes. -#}
{% macro bars_per_year(timeframe) %}
    {% do return(525600 / (bar_minutes(timeframe) or 43800)) %}
{% endmacro %}

{#- SQL: open time of the bar with which a listing begins. -#}
{% macro listing_open(timeframe, relisted_at) -%}
    {%- if timeframe == '1m' -%}{{ relisted_at }}{%- else -%}{{ bar_open(timeframe, relisted_at) }}{%- endif -%}
{%- endmacro %}


{#-
  SQL: makes the temporary table stretches (symbol, from_time, to_time): the bars that the changes
  in "touched" can reach, from the first touched bar to the end of the last run whose warm-up
  holds it or its absence.
-#}
{% macro make_stretches_sql(timeframe, bars) %}
    create temporary table stretches on commit drop as
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
            unnest(range_agg(tstzrange(from_time, to_time))) as stretch
        from reached
        group by symbol
    )

    select
        symbol,
        lower(stretch) as from_time,
        upper(stretch) as to_time
    from united;
    analyze stretches
{% endmacro %}


{#-
  SQL, CTEs: the bars that stretches need, ending with "bars_of_pieces". A piece is a stretch's
  part of one run and listing; it comes with the bars before it that its values need.
-#}
{% macro indicator_bars(timeframe, bars, relistings, stretches, stored=none) %}
{%- set listing_open = listing_open(timeframe, 'relisting.relisted_at') -%}
finite as (
    select
        stretch.symbol,
        greatest(stretch.from_time, ends.first_open) as from_time,
        least(stretch.to_time, ends.end_of_last) as to_time
    from {{ stretches }} as stretch
    cross join lateral (
        select
            (
                select bar.open_time from {{ bars }} as bar
                where bar.symbol = stretch.symbol
                order by bar.open_time limit 1
            ) as first_open,
            (
                select bar.next_open_time from {{ bars }} as bar
                where bar.symbol = stretch.symbol
                order by bar.open_time desc limit 1
            ) as end_of_last
    ) as ends
    where
        stretch.from_time < ends.end_of_last
        and stretch.to_time > ends.first_open
),

cuts as (
    select
        symbol,
        from_time as stretch,
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
        lead(cut, 1, to_time) over (partition by symbol, stretch order by cut) as to_time,
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
        -- the longest warm-up: with it every state is there
        on last_row.ema_50 is not null
),
{%- endif %}

-- once for each piece, not for each bar that it is compared with
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
        {{ session_start(timeframe, 'bar.open_time') }} as session,
        {{ is_intraday(timeframe) }} as is_intraday,
        {{ bars_per_year(timeframe) }}::double precision as bars_per_year,
        {%- if stored is not none %}
        bar.open_time = piece.carried_at as is_carried,
        bar.open_time > coalesce(piece.carried_at, '-infinity') as goes_on,
        {%- for state in [
            'ema_20', 'ema_50', 'macd_slow', 'macd_fast', 'macd_signal', 'average_gain', 'average_loss',
            'atr_14'
        ] %}
        carried.{{ state }} as carried_{{ state }},
        {%- endfor %}
        {%- endif %}
        bar.open_time >= piece.from_time as is_asked
    from reads as piece
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


{#- SQL: open time of the n-th bar of the piece's listing before a moment, else the listing's start. -#}
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
