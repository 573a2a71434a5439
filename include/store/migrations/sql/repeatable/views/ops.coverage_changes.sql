SELECT changed_by, symbol, minutes FROM ops.candle_changes
UNION ALL
SELECT changed_by, symbol, minutes FROM ops.status_changes
