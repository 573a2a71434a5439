SELECT
    q.run_id,
    q.run_at,
    q.suite,
    q.check_name,
    q.severity,
    f.row ->> 'symbol' COLLATE "C" AS symbol,
    (f.row ->> 'open_time')::timestamptz AS open_time,
    f.row ->> 'key' COLLATE "C" AS key,
    f.row ->> 'detail' AS detail
FROM ops.quality_results AS q
CROSS JOIN LATERAL jsonb_array_elements(q.failing_rows) AS f (row)
WHERE NOT q.success
