{#-
  Sessions whose volume profile differs from the sum of their footprint. Sessions that the footprint
  has rebuilt since then are skipped, so that the test passes while builds are running.
-#}
{% test equals_its_footprint(model) %}
{%- set footprint = ref('footprint_1m') -%}
with buckets as (
    select * from {{ tested_rows(model) }}
),

profiles as (
    select
        symbol,
        session,
        sum(bid_volume) as bid_volume,
        sum(ask_volume) as ask_volume,
        sum(trade_count) as trade_count
    from buckets
    group by symbol, session
)

select
    profiles.*,
    minutes.bid_volume as footprint_bid_volume,
    minutes.ask_volume as footprint_ask_volume,
    minutes.trade_count as footprint_trade_count
from profiles
cross join lateral (
    select
        sum(footprint.bid_volume) as bid_volume,
        sum(footprint.ask_volume) as ask_volume,
        sum(footprint.trade_count) as trade_count
    from {{ footprint }} as footprint
    where
        footprint.symbol = profiles.symbol
        and footprint.open_time >= profiles.session::timestamp at time zone 'UTC'
        and footprint.open_time < (profiles.session + 1)::timestamp at time zone 'UTC'
) as minutes
where
    (profiles.bid_volume, profiles.ask_volume, profiles.trade_count)
    is distinct from (minutes.bid_volume, minutes.ask_volume, minutes.trade_count)
    and not exists (
        select 1 from {{ source('ops', 'session_changes') }} as changes
        inner join {{ source('ops', 'build_cursors') }} as cursors
            on
                cursors.relation = '{{ cursor_name(model) }}'
                and cursors.target = '{{ target.name }}'
                and not pg_visible_in_snapshot(changes.changed_by, cursors.snapshot)
        where
            changes.relation = '{{ cursor_name(footprint) }}'
            and coalesce(changes.symbol = profiles.symbol and changes.session = profiles.session, true)
    )
{% endtest %}
