{#-
  All-time high and low of each symbol's current listing, and the levels between them.

  A view over months and, where newer, days, hours and minutes. It reads some hundred rows per
  symbol and is up to date regardless of which mart was built last.
-#}
{% macro price_levels() %}
{{ config(materialized='view') }}
with months as not materialized (
    -- render(): --empty must not leave an empty view behind.
    select * from {{ ref('candles_1mo').render() }}
),

days as not materialized (
    select * from {{ ref('candles_1d').render() }}
),

hours as not materialized (
    select * from {{ ref('candles_1h').render() }}
),

minutes as not materialized (
    select * from {{ ref('stg_market__candles_1m').render() }}
),

minutes_live as not materialized (
    select * from {{ ref('stg_market__candles_1m_live').render() }}
),

relistings as not materialized (
    select * from {{ ref('stg_market__relistings').render() }}
),

listings as (
    select
        months.symbol,
        coalesce(
            (
                select max(relistings.relisted_at) from relistings
                where relistings.symbol = months.symbol
            ),
            '-infinity'
        ) as since
    from months
    group by months.symbol
),

extremes as (
    select
        listing.symbol,
        reached.high,
        reached.low,
        high_reached.first_at as high_at,
        low_reached.first_at as low_at,
        last_minute.close,
        last_minute.open_time as close_at
    from listings as listing
    cross join lateral (
        select
            (
                select months.open_time from months
                where months.symbol = listing.symbol
                order by months.open_time desc limit 1
            ) as last_month,
            (
                select days.open_time from days
                where days.symbol = listing.symbol
                order by days.open_time desc limit 1
            ) as last_day,
            (
                select hours.open_time from hours
                where hours.symbol = listing.symbol
                order by hours.open_time desc limit 1
            ) as last_hour
    ) as recent
    cross join lateral (
        select
            minutes_live.open_time,
            minutes_live.close
        from minutes_live
        where
            minutes_live.symbol = listing.symbol
            and minutes_live.open_time >= recent.last_hour
        order by minutes_live.open_time desc limit 1
    ) as last_minute
    cross join lateral (
        select
            max(bars.high) as high,
            min(bars.low) as low
        from {{ bars_of_listing() }} as bars
    ) as reached
    left join lateral {{ first_minute_with('high', 'reached.high') }} as high_reached on true
    left join lateral {{ first_minute_with('low', 'reached.low') }} as low_reached on true
    where reached.high is not null
)

select
    symbol,
    high as all_time_high,
    high_at as all_time_high_at,
    low as all_time_low,
    low_at as all_time_low_at,
    close as last_price,
    close_at as last_price_at,
    (100 * (close - low) / nullif(high - low, 0))::double precision as position_percent,
    high as fibonacci_0,
    high - 0.236 * (high - low) as fibonacci_23_6,
    high - 0.382 * (high - low) as fibonacci_38_2,
    high - 0.5 * (high - low) as fibonacci_50,
    high - 0.618 * (high - low) as fibonacci_61_8,
    high - 0.786 * (high - low) as fibonacci_78_6,
    low as fibonacci_100
from extremes
{% endmacro %}


{#-
  SQL, for LATERAL: first_at, the open time of the first minute of a listing that reached an
  extreme. The search goes from the first month with the extreme to its day, hour and minute, some
  hundred rows. If a finer bar does not contain the extreme (it was repaired and the month is not
  built again yet), the search stops at the coarser bar.

  Args:
      price: column with the extreme: high or low.
      extreme: the price to find.
-#}
{% macro first_minute_with(price, extreme) -%}
(
    select coalesce(minute.open_time, hour.open_time, day.open_time, span.open_time) as first_at
    from (
        select
            greatest(bars.open_time, listing.since) as open_time,
            bars.next_open_time
        from {{ bars_of_listing() }} as bars
        where bars.{{ price }} = {{ extreme }}
        order by bars.open_time limit 1
    ) as span
    left join lateral (
        select open_time, next_open_time from days
        where
            {{ of_listing('days') }}
            and days.{{ price }} = {{ extreme }}
            and days.open_time >= date_trunc('day', span.open_time, 'UTC')
            and days.open_time < span.next_open_time
        order by open_time limit 1
    ) as day on true
    left join lateral (
        select open_time, next_open_time from hours
        where
            {{ of_listing('hours') }}
            and hours.{{ price }} = {{ extreme }}
            and hours.open_time
            >= date_trunc('hour', greatest(day.open_time, span.open_time), 'UTC')
            and hours.open_time < coalesce(day.next_open_time, span.next_open_time)
        order by open_time limit 1
    ) as hour on true
    left join lateral (
        select open_time from minutes
        where
            {{ of_listing('minutes') }}
            and minutes.{{ price }} = {{ extreme }}
            and minutes.open_time >= greatest(hour.open_time, day.open_time, span.open_time)
            and minutes.open_time
            < coalesce(hour.next_open_time, day.next_open_time, span.next_open_time)
        order by open_time limit 1
    ) as minute on true
)
{%- endmacro %}


{#-
  SQL, for LATERAL: bars of a listing with trades: all months, days from the last month on, hours
  from the last day on, live minutes from the last hour on.
-#}
{% macro bars_of_listing() -%}
(
            {%- for bars, since in [
                ('months', none),
                ('days', 'recent.last_month'),
                ('hours', 'recent.last_day'),
                ('minutes_live', 'recent.last_hour'),
            ] %}
            select open_time, next_open_time, high, low from {{ bars }}
            where {{ of_listing(bars) }}{% if since %} and {{ bars }}.open_time >= {{ since }}{% endif %}
            {%- if not loop.last %}
            union all
            {%- endif %}
            {%- endfor %}
        )
{%- endmacro %}


{#- SQL: whether a bar belongs to the listing and has trades. -#}
{% macro of_listing(bars) -%}
{{ bars }}.symbol = listing.symbol
            and {{ bars }}.next_open_time > listing.since
            and {{ bars }}.trade_count > 0
{%- endmacro %}
