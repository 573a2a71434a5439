-- Field X of USD-M's trade stream. Rows stored before have NULL: their type is unknown. NULL costs no
-- space, and adding a column without a default rewrites no partition.
ALTER TABLE market.trades ADD COLUMN trade_type text COLLATE "C" CHECK (trade_type <> '');
