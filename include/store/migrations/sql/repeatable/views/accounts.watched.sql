SELECT
    w.symbol,
    count(*) AS watchers
FROM accounts.watched_symbols AS w
INNER JOIN accounts.users AS u ON w.user_id = u.id
WHERE u.disabled_at IS NULL
GROUP BY w.symbol
