{#-
  SQL: how much of each UTC day of a symbol is there, from its first stored minute on; days
  without a single minute included.

  Counted from the stored days, so that its cost is that of days, not of minutes. Of today, the
  minutes are expected that had ended two minutes before the counts were made.

  Args:
      since: SQL of the start of the first day looked at; none for all days.
-#}
{% macro coverage_query(since=none) %}
with stored as (
    select * from {{ ref('int_health__days').render() }}
    {%- if since %}
    where open_time >= {{ since }}
    {%- endif %}
),

-- The older of the two builds that the counts went through.
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

-- Between two listings of a ticker nothing is expected.
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

mended as (
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

-- Each stored day, from where to where minutes are expected, up to the next stored day.
stretches as (
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
        stretches.symbol,
        days.open_time,
        stretches.open_time = days.open_time as is_stored,
        stretches.present_minutes,
        stretches.verified_minutes,
        stretches.unconfirmed_minutes,
        stretches.partial_minutes,
        stretches.silent_minutes,
        stretches.revised_minutes,
        tstzrange(
            greatest(stretches.expected_from, days.open_time),
            least(stretches.expected_to, days.open_time + interval '1440 minutes')
        ) as expected
    from stretches
    cross join lateral generate_series(
        {{ bar_open('1d', 'stretches.expected_from') }},
        stretches.expected_to - interval '1 microsecond',
        interval '1440 minutes'
    ) as days (open_time)
),

counted as (
    select
        every_day.symbol,
        every_day.open_time,
        every_day.expected,
        unlisted.minutes as unlisted,
        case when is_stored then present_minutes else 0 end as present_minutes,
        case when is_stored then verified_minutes else 0 end as verified_minutes,
        case when is_stored then unconfirmed_minutes else 0 end as unconfirmed_minutes,
        case when is_stored then partial_minutes else 0 end as partial_minutes,
        case when is_stored then silent_minutes else 0 end as silent_minutes,
        case when is_stored then revised_minutes else 0 end as revised_minutes,
        case
            when mended.minutes && expected
                then ops.minutes_in(mended.minutes * tstzmultirange(expected))
            else 0
        end as mended_minutes,
        case
            when unlisted.minutes && expected
                then ops.minutes_in(tstzmultirange(expected) - unlisted.minutes)
            else extract(epoch from upper(expected) - lower(expected))::integer / 60
        end as expected_minutes
    from every_day
    left join unlisted on every_day.symbol = unlisted.symbol
    left join mended on every_day.symbol = mended.symbol
),

halted as (
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

-- A minute of an outage that has a row is present, and excuses no other. Rows are read for days
-- that lack some and have an outage alone, and within it.
excused as (
    select
        halted.*,
        case
            when halted.outage is null or isempty(halted.outage) then 0
            else ops.minutes_in(halted.outage - coalesce(
                (
                    select range_agg(tstzrange(minutes.open_time, minutes.open_time + interval '1 minute'))
                    from {{ ref('stg_market__candles_1m').render() }} as minutes
                    where
                        minutes.symbol = halted.symbol
                        and minutes.open_time >= lower(halted.outage)
                        and minutes.open_time < upper(halted.outage)
                ),
                '{}'
            ))
        end as outage_minutes
    from halted
)

select
    symbol,
    (open_time at time zone 'UTC')::date as day,
    expected_minutes,
    present_minutes,
    verified_minutes,
    unconfirmed_minutes,
    partial_minutes,
    silent_minutes,
    revised_minutes,
    mended_minutes,
    outage_minutes,
    greatest(expected_minutes - present_minutes - outage_minutes, 0) as missing_minutes
from excused
where expected_minutes > 0
{% endmacro %}
