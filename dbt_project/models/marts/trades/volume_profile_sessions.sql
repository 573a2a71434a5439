{{ config(materialized='view') }}

select
    sessions.symbol,
    sessions.session,
    coverage.kept,
    coverage.is_complete,
    coverage.reason,
    sessions.price_step,
    sessions.price_low,
    sessions.price_high,
    sessions.point_of_control,
    sessions.control_volume,
    sessions.value_area_low,
    sessions.value_area_high,
    sessions.value_area_volume,
    sessions.volume,
    sessions.bid_volume,
    sessions.ask_volume,
    sessions.delta,
    sessions.trade_count,
    sessions.built_at
from {{ ref('trade_sessions').render() }} as sessions
inner join {{ ref('trade_coverage').render() }} as coverage
    on sessions.symbol = coverage.symbol and sessions.session = coverage.session
