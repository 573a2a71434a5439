{#-
  Columns of counts that hours, days and coverage share. Hours count minutes; days add up hours.
-#}
{% macro minute_counts() %}
    {% do return([
        'present_minutes', 'verified_minutes', 'unconfirmed_minutes', 'partial_minutes',
        'silent_minutes', 'revised_minutes',
    ]) %}
{% endmacro %}

{#- SQL: the sum of each count of a relation. -#}
{% macro sum_minute_counts(relation) -%}
    {%- for count in minute_counts() %}
        sum({{ relation }}.{{ count }})::integer as {{ count }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#-
  SQL: the coverage of each symbol and UTC day from the symbol's first stored minute on, including
  days without any minute.

  Reads the stored counts of days, so its cost depends on days and not on minutes. Today's expected
  minutes end two minutes before the counts were made.

  Args:
      since: SQL of the start of the first day; none for all days.
-#}
{% macro coverage_query(since=none) %}
with stored as (
    select * from {{ ref('int_health__days').render() }}
    {%- if since %}
    where open_time >= {{ since }}
    {%- endif %}
),

-- The older of the two builds that produced the counts.
counted_until as (
    select
        date_bin('1 minute', min(built_at), '2001-01-01 00:00:00+00') - interval '2 minutes' as moment
    from {{ source('ops', 'build_cursors').render() }}
    where
        relation in (
            '{{ cursor_name(ref("int_health__hours")) }}', '{{ cursor_name(ref("int_health__days")) }}'
        )
        and target = '{{ target.name }}'
),

outages as (
    select * from {{ ref('stg_ops__outages').render() }}
),

-- No minutes are expected between two listings of a ticker.
unlisted as (
    select
        relistings.symbol,
        range_agg(tstzrange(last_of_former.open_time + interval '1 minute', relistings.relisted_at)) as minutes
    from {{ ref('stg_market__relistings').render() }} as relistings
    cross join lateral (
        select minutes.open_time from {{ ref('stg_market__candles_1m').render() }} as minutes
        where minutes.symbol = relistings.symbol and minutes.open_time < relistings.relisted_at
        order by minutes.open_time desc
        limit 1
    ) as last_of_former
    group by relistings.symbol
),

repaired as (
    select
        symbol,
        range_agg(tstzrange(from_time, to_time)) as minutes
    from {{ ref('stg_ops__gaps').render() }}
    where
        repaired_at is not null
        and dataset = 'candles_1m'
        {%- if since %}
        and to_time > {{ since }}
        {%- endif %}
    group by symbol
),

neighbours as (
    select
        *,
        lag(open_time) over in_order as day_before,
        lead(open_time) over in_order as day_after
    from stored
    window in_order as (partition by symbol order by open_time)
),

-- For each stored day: the range of expected minutes, up to the next stored day.
spans as (
    select
        neighbours.*,
        {% if since -%}
        case
            when
                neighbours.day_before is null
                and exists (
                    select 1 from {{ ref('int_health__days').render() }} as earlier
                    where earlier.symbol = neighbours.symbol and earlier.open_time < {{ since }}
                )
                then {{ since }}
            when neighbours.day_before is null then neighbours.first_minute
            else neighbours.open_time
        end as expected_from,
        {%- else -%}
        case
            when neighbours.day_before is null then neighbours.first_minute else neighbours.open_time
        end as expected_from,
        {%- endif %}
        case
            when neighbours.day_after is not null then neighbours.day_after
            when symbols.is_trading and symbols.is_streamed
                then greatest(counted_until.moment, neighbours.newest_minute + interval '1 minute')
            else neighbours.newest_minute + interval '1 minute'
        end as expected_to
    from neighbours
    cross join counted_until
    left join {{ ref('int_health__symbols').render() }} as symbols on neighbours.symbol = symbols.symbol
),

every_day as (
    select
        spans.symbol,
        days.open_time,
        spans.open_time = days.open_time as is_stored,
        {%- for count in minute_counts() %}
        spans.{{ count }},
        {%- endfor %}
        tstzrange(
            greatest(spans.expected_from, days.open_time),
            least(spans.expected_to, days.open_time + interval '1440 minutes')
        ) as expected
    from spans
    cross join lateral generate_series(
        {{ bar_open('1d', 'spans.expected_from') }},
        spans.expected_to - interval '1 microsecond',
        interval '1440 minutes'
    ) as days (open_time)
),

counted as (
    select
        every_day.symbol,
        every_day.open_time,
        every_day.expected,
        unlisted.minutes as unlisted,
        {%- for count in minute_counts() %}
        case when is_stored then {{ count }} else 0 end as {{ count }},
        {%- endfor %}
        case
            when repaired.minutes && expected
                then ops.minutes_in(repaired.minutes * tstzmultirange(expected))
            else 0
        end as repaired_minutes,
        case
            when unlisted.minutes && expected
                then ops.minutes_in(tstzmultirange(expected) - unlisted.minutes)
            else extract(epoch from upper(expected) - lower(expected))::integer / 60
        end as expected_minutes
    from every_day
    left join unlisted on every_day.symbol = unlisted.symbol
    left join repaired on every_day.symbol = repaired.symbol
),

with_outages as (
    select
        counted.*,
        case
            when counted.present_minutes < counted.expected_minutes
                then (
                    select range_agg(outages.minutes) from outages
                    where
                        outages.market = market.market_of(counted.symbol)
                        and (outages.symbol = counted.symbol or outages.symbol is null)
                        and outages.minutes && counted.expected
                ) * tstzmultirange(counted.expected) - coalesce(counted.unlisted, '{}')
        end as outage
    from counted
),

-- A stored minute within an outage is present and does not count as an outage minute. Rows are
-- read only within outages, and only on days that lack minutes.
excused as (
    select
        with_outages.*,
        case
            when with_outages.outage is null or isempty(with_outages.outage) then 0
            else ops.minutes_in(with_outages.outage - coalesce(
                (
                    select range_agg(tstzrange(minutes.open_time, minutes.open_time + interval '1 minute'))
                    from {{ ref('stg_market__candles_1m').render() }} as minutes
                    where
                        minutes.symbol = with_outages.symbol
                        and minutes.open_time >= lower(with_outages.outage)
                        and minutes.open_time < upper(with_outages.outage)
                ),
                '{}'
            ))
        end as outage_minutes
    from with_outages
)

select
    symbol,
    (open_time at time zone 'UTC')::date as day,
    expected_minutes,
    {{ minute_counts() | join(',\n    ') }},
    repaired_minutes,
    outage_minutes,
    greatest(expected_minutes - present_minutes - outage_minutes, 0) as missing_minutes
from excused
where expected_minutes > 0
{% endmacro %}
