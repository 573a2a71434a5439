-- depends_on: {{ ref('footprint_1m') }}
{{ config(materialized='view') }}

-- Reads the function that cumulative_delta() reads, one session at a time: filter by session.
select
    s.symbol,
    s.session,
    m.open_time,
    m.bid_volume,
    m.ask_volume,
    m.trade_count,
    m.cumulative_delta,
    m.ask_volume - m.bid_volume as delta,
    m.kept = 'whole' and m.cumulative_delta is not null as is_complete
from {{ ref('trade_sessions').render() }} as s
cross join lateral {{ this.schema }}.session_deltas(s.symbol, s.session, s.session) as m
where m.bid_volume is not null or m.kept = 'none'
