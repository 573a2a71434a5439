-- Raw capture has gaps of its own: what was missed of trades or quotes is no missing minute of
-- candles, and whoever repairs candles must neither claim nor close it.

ALTER TABLE ops.gaps
ADD COLUMN dataset text COLLATE "C" NOT NULL DEFAULT 'candles_1m'
CONSTRAINT gaps_know_their_dataset CHECK (
    dataset IN ('candles_1m', 'agg_trades', 'trades', 'book_tickers')
);
DROP INDEX ops.gaps_each_open_once;
CREATE UNIQUE INDEX gaps_each_open_once ON ops.gaps (symbol, dataset, from_time, to_time)
WHERE repaired_at IS NULL;
COMMENT ON COLUMN ops.gaps.dataset IS
'Table of schema market that misses something: candles_1m, or one of the raw capture.';
