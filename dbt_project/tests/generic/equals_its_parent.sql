{#-
  Bars with a value that differs from their finer bars. The test uses a join where the mart uses a
  grouping; if every mart equals its parent, every mart equals its minutes.

  Bars with a change that the mart's cursor has not seen are skipped, because writers continue
  between a build and its test.
-#}
{% test equals_its_parent(model, timeframe) %}
{%- set mart = ref(model_of(timeframe)) -%}
with bars as (
    select * from {{ tested_rows(model) }}
),

unseen as (
    select
        changes.symbol,
        range_agg(changes.minutes) as minutes
    from {{ source('ops', 'candle_changes') }} as changes
    inner join {{ source('ops', 'build_cursors') }} as cursors
        on
            cursors.relation = '{{ cursor_name(mart) }}'
            and cursors.target = '{{ target.name }}'
            and not pg_visible_in_snapshot(changes.changed_by, cursors.snapshot)
    group by changes.symbol
)

select
    bars.symbol,
    bars.open_time,
    bars.volume,
    finer.volume as finer_volume,
    bars.trade_count,
    finer.trade_count as finer_trade_count,
    bars.minute_count,
    finer.minute_count as finer_minute_count
from bars
left join unseen on bars.symbol = unseen.symbol
cross join lateral (
    select
        sum(volume) as volume,
        sum(quote_volume) as quote_volume,
        sum(trade_count) as trade_count,
        sum(taker_buy_volume) as taker_buy_volume,
        sum(taker_buy_quote_volume) as taker_buy_quote_volume,
        max(high) filter (where trade_count > 0) as high,
        min(low) filter (where trade_count > 0) as low,
        min(array[extract(epoch from open_time), open, first_trade_id])
            filter (where trade_count > 0) as first_traded,
        max(array[extract(epoch from open_time), close, last_trade_id])
            filter (where trade_count > 0) as last_traded,
        max(array[extract(epoch from open_time), close]) as newest,
        sum(minute_count) as minute_count
    from {{ ref(model_of(timeframes()[timeframe]['parent'])) }} as parent
    where
        parent.symbol = bars.symbol
        and parent.open_time >= bars.open_time
        and parent.open_time < bars.next_open_time
        and {{ is_of_last_listing(timeframe, 'parent', ref('stg_market__relistings')) }}
) as finer
where
    (
        bars.open, bars.high, bars.low, bars.close, bars.volume, bars.quote_volume,
        bars.trade_count, bars.taker_buy_volume, bars.taker_buy_quote_volume, bars.first_trade_id,
        bars.last_trade_id, bars.minute_count
    ) is distinct from (
        coalesce(finer.first_traded[2], finer.newest[2]), coalesce(finer.high, finer.newest[2]),
        coalesce(finer.low, finer.newest[2]), coalesce(finer.last_traded[2], finer.newest[2]),
        finer.volume, finer.quote_volume, finer.trade_count, finer.taker_buy_volume,
        finer.taker_buy_quote_volume, finer.first_traded[3], finer.last_traded[3],
        finer.minute_count
    )
    and not coalesce(
        unseen.minutes && tstzrange(bars.open_time, bars.next_open_time), false
    )
{% endtest %}
