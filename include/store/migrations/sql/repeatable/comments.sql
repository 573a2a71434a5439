-- What each table, view and column means, kept in the database: psql's \d+, BI tools and `dbt docs`
-- show it. Only a text that differs is written, so a repeated migration locks no table.
CREATE FUNCTION pg_temp.describe(relation regclass, about text, VARIADIC columns text [] DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    kind text := CASE (SELECT c.relkind FROM pg_class AS c WHERE c.oid = relation)
        WHEN 'v' THEN 'VIEW' ELSE 'TABLE'
    END;
    described text;
BEGIN
    IF about <> coalesce(obj_description(relation, 'pg_class'), '') THEN
        EXECUTE format('COMMENT ON %s %s IS %L', kind, relation, about);
    END IF;
    FOR i IN 1 .. cardinality(columns) BY 2 LOOP
        described := (
            SELECT coalesce(col_description(a.attrelid, a.attnum), '') FROM pg_attribute AS a
            WHERE a.attrelid = relation AND a.attname = columns[i]
        );
        -- A column that does not exist has no text at all: COMMENT then says so.
        IF described IS DISTINCT FROM columns[i + 1] THEN
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, columns[i], columns[i + 1]);
        END IF;
    END LOOP;
END
$$;

-- Candles

SELECT pg_temp.describe(
    r, NULL,
    'symbol', 'Platform symbol, unique across markets: spot BTCUSDT, USD-M futures BTCUSDT.P, COIN-M futures BTCUSD_PERP.'
)
FROM unnest(ARRAY[
    'market.candles_1m', 'market.live_candles', 'ops.live_candles_1', 'market.candles_1m_live',
    'market.foreign_candles_1m', 'market.candles_1m_with_foreign', 'market.instruments',
    'market.agg_trades', 'market.trades', 'market.book_tickers', 'market.liquidations',
    'market.depth_diffs', 'market.depth_snapshots', 'ops.candle_candidates',
    'market.funding_rates', 'market.mark_prices_1m', 'market.index_prices_1m',
    'market.premium_index_1m', 'market.open_interest_5m', 'market.trader_ratios_5m',
    'ops.series_coverage', 'ops.series_discrepancies',
    'ops.discrepancies', 'ops.coverage', 'ops.verdicts', 'ops.reconciliations', 'ops.gaps',
    'ops.candle_changes', 'ops.status_changes', 'ops.coverage_changes', 'ops.trade_changes',
    'ops.mart_audits', 'accounts.watched_symbols', 'accounts.watched'
]::regclass []) AS r;

SELECT pg_temp.describe(
    r, NULL,
    'open_time', 'Start of the minute.',
    'open', 'Price of the first trade, in quote asset. In a minute without trades: the previous close.',
    'high', 'Highest price, in quote asset.',
    'low', 'Lowest price, in quote asset.',
    'close', 'Price of the last trade, in quote asset. In a minute without trades: the previous close.',
    'volume', 'Traded amount, in base asset; on COIN-M in contracts.',
    'quote_volume', 'Traded amount, in quote asset; on COIN-M in base asset. Null in live candles if the exchange rounds each fill.',
    'trade_count', 'Number of trades; 0 if nobody traded.',
    'taker_buy_volume', 'Part of volume bought by takers, in the same unit.',
    'taker_buy_quote_volume', 'Part of quote_volume bought by takers, in the same unit.',
    'first_trade_id', 'Id of the first trade; null if no source sent ids with these values.',
    'last_trade_id', 'Id of the last trade; null if no source sent ids with these values.'
)
FROM unnest(ARRAY[
    'market.candles_1m', 'market.live_candles', 'ops.live_candles_1', 'market.candles_1m_live',
    'ops.candle_candidates'
]::regclass []) AS r;

SELECT pg_temp.describe(
    'market.candles_1m',
    'One row per symbol and minute in which the exchange was open, with source and status of its values.',
    'status', 'verified: the exchange''s own candle, or equal to it. unconfirmed: aggregated from contiguous trades, or from a user''s file. partial: trades are known to be missing.',
    'source', 'Source of the values: rest, dump_daily, dump_monthly, kline (stream), stream (aggregated live trades), trades (aggregated trade dump), file (of a user) or foreign (of a user, with columns of others).',
    'source_rank', 'Authority of the source; the higher wins the merge: rest 80, dump_daily 70, dump_monthly 60, kline 50, stream 40, trades 30, file 20, foreign 5; any partial row 10.',
    'evidence_at', 'Time of the evidence, by the exchange: publication of a file, server time of a REST answer, event time of a kline. Null for live trades and users'' files.',
    'revision', 'Number of times that the nine values changed since the row was first written.',
    'updated_at', 'When the nine values were last written. A better source of equal values does not change it.',
    'evidence_last_trade_id', 'Sources stream and trades only: last trade id of the aggregated candle (0: none), by which the merge ranks it. Equal values of another candidate may have other ids.'
);

SELECT pg_temp.describe(
    'ops.candle_partitions',
    'Partitions of market.candles_1m whose rows the change log knows.',
    'name', 'Of the partition, in schema market.'
);

SELECT pg_temp.describe(
    'ops.mart_audits',
    'When each month of a symbol in the marts was last compared with its minutes.',
    'month', 'First moment of the month, UTC.',
    'audited_at', 'When the comparison ended.',
    'differing_bars', 'Bars of all timeframes that differed; they were rebuilt afterwards.'
);

SELECT pg_temp.describe(
    'ops.live_candle_table',
    'Which of the tables ops.live_candles_<number> has the open candles; one row.',
    'number', 'Of the table in use.',
    'next_number', 'Of the empty table for the next rotation; null until it is emptied.',
    'copied_bytes', 'Size of the table in use after the last rotation.',
    'copied_at', 'When the last rotation was.'
);

SELECT pg_temp.describe(
    r, about,
    'is_closed', 'Whether the minute has ended.',
    'event_time', 'Event time of the newest frame, by the exchange.',
    'updated_at', 'When the row was written.'
)
FROM (VALUES
    ('market.live_candles'::regclass, 'The open candle of each symbol, and closed candles that wait for verification. Empty after a crash.'),
    ('ops.live_candles_1'::regclass, 'First table of open candles; read market.live_candles instead. Unlogged. Rotations create equal ones.')
) AS v (r, about);

SELECT pg_temp.describe(
    'market.candles_1m_live',
    'market.candles_1m and the live candles that are not in it yet. Each minute appears once.',
    'status', 'As in market.candles_1m; of other candles live (open) or closed (waiting for verification).',
    'source', 'As in market.candles_1m; stream for live and closed candles.',
    'revision', 'As in market.candles_1m; 0 for live and closed candles.',
    'updated_at', 'When the values were written.'
);

SELECT pg_temp.describe(
    r, about,
    'open_time', 'Start of the minute.',
    'open', 'Price of the first trade, in quote asset.',
    'high', 'Highest price, in quote asset.',
    'low', 'Lowest price, in quote asset.',
    'close', 'Price of the last trade, in quote asset.',
    'volume', 'Traded amount, in base asset; null if unknown.',
    'quote_volume', 'Traded amount, in quote asset; null if unknown.',
    'trade_count', 'Number of trades; null if unknown.',
    'taker_buy_volume', 'Part of volume bought by takers; null if unknown.',
    'taker_buy_quote_volume', 'Part of quote_volume bought by takers; null if unknown.',
    'file', 'Name of the file that has the row; null for rows of market.candles_1m.'
)
FROM (VALUES
    ('market.foreign_candles_1m'::regclass, 'Minutes from files with columns of others (candelabra import --columns) that lack a value; one row per symbol, minute and file of a folder. They take no part in the merge.'),
    ('market.candles_1m_with_foreign'::regclass, 'market.candles_1m, and foreign rows of minutes that it does not have. Each minute appears once.')
) AS v (r, about);

SELECT pg_temp.describe(
    'market.foreign_candles_1m', NULL,
    'origin', 'Folder of the file; tells files of one name apart.',
    'imported_at', 'When the row was last imported.'
);

SELECT pg_temp.describe(
    'market.candles_1m_with_foreign', NULL,
    'status', 'As in market.candles_1m; unverified for foreign rows.',
    'source', 'As in market.candles_1m; foreign for foreign rows.'
);

SELECT pg_temp.describe(
    'ops.candle_candidates',
    'Template of the temporary table "candidates" that ops.merge_candidates() reads. Always empty.',
    'status', 'As in market.candles_1m.',
    'source', 'As in market.candles_1m.',
    'source_rank', 'As in market.candles_1m.',
    'evidence_at', 'As in market.candles_1m.'
);

SELECT pg_temp.describe(
    'ops.discrepancies',
    'One row per candidate that lost the merge of its minute with other values than the winner''s.',
    'id', 'Identifies the row.',
    'open_time', 'Start of the minute.',
    'found_at', 'When the candidate lost for the first time.',
    'winner_source', 'Source of the winner, at found_at.',
    'winner_status', 'Status of the winner, at found_at.',
    'winner_evidence_at', 'evidence_at of the winner, at found_at.',
    'stored_during', 'When the losing values stood in market.candles_1m under this source; empty if they lost on arrival.'
);

SELECT pg_temp.describe('ops.discrepancies', NULL, 'loser_' || c, 'The loser''s ' || c || '.')
FROM unnest(ARRAY[
    'source', 'status', 'evidence_at', 'open', 'high', 'low', 'close', 'volume', 'quote_volume',
    'trade_count', 'taker_buy_volume', 'taker_buy_quote_volume', 'first_trade_id', 'last_trade_id'
]) AS c;

SELECT pg_temp.describe(
    'ops.coverage',
    'One row per symbol, UTC day and source: the minutes that the source has reported.',
    'source', 'rest, dump_daily, dump_monthly, kline, stream, trades, file or foreign.',
    'day', 'UTC day.',
    'minutes', 'Minutes of the day that the source has reported. REST also covers minutes for which it answered that no candle exists.'
);

SELECT pg_temp.describe(
    'ops.verdicts',
    'One row per symbol, UTC day and source: how far the source agrees with the stored rows.',
    'day', 'UTC day.',
    'source', 'The compared source.',
    'covered_minutes', 'Minutes of the day that the source has reported.',
    'differing_minutes', 'Minutes in which the source reported other values than the stored row now has.',
    'verdict', 'agrees: on the whole day. agrees_so_far: on the reported part. differs: in at least one minute.'
);

-- Instruments

SELECT pg_temp.describe(
    'market.instruments',
    'One row per listing. A ticker that was delisted and used again has two; bars never span two listings.',
    'listed_from', 'Start of trading, if the exchange publishes it. Otherwise 1970-01-01 for the first listing, and the time of its return for a later one.',
    'listed_to', 'Delivery of the contract, or when the exchange stopped showing the symbol; null while it is listed.',
    'market', 'spot, um (USD-M futures) or cm (COIN-M futures).',
    'exchange_symbol', 'The exchange''s name of the symbol.',
    'base_asset', 'The traded asset.',
    'quote_asset', 'The asset in which prices are given.',
    'status', 'Status by the exchange: TRADING, BREAK and so on.',
    'tick_size', 'Price step, in quote asset.',
    'step_size', 'Quantity step, in base asset; on COIN-M in contracts.',
    'filters', 'All order filters by type; numbers as the exchange writes them.',
    'quote_volume_is_exact', 'Whether the sum of price × quantity equals the exchange''s quote volume. False on COIN-M, and if tick × step has more than 8 decimals: the exchange then rounds each fill.',
    'seen_at', 'Server time of the latest answer that contained the symbol.',
    'contract_type', 'Type of the futures contract by the exchange: PERPETUAL, CURRENT_QUARTER and so on. Null on spot.',
    'contract_size', 'Quote value of one contract on COIN-M, where volumes count contracts: 100 USD for BTC. Null where the exchange publishes none: spot and USD-M.',
    'margin_asset', 'Asset in which the contract is margined and settled. Null on spot.',
    'pair', 'Pair of the contract, which all its expiries share: BTCUSD, BTCUSDT. Null on spot.',
    'delivers_at', 'Delivery of a dated contract, or the announced end of a perpetual one. Null on spot and for perpetual contracts without an announced end.',
    'settlement_price', 'Price at which a dated contract was delivered. Null until the exchange publishes it.'
);

-- Raw capture

SELECT pg_temp.describe(
    r, NULL,
    'price', 'Price, in quote asset.',
    'quantity', 'Amount, in base asset; on COIN-M in contracts.',
    'trade_time', 'Time of the trade, by the exchange.',
    'is_buyer_maker', 'True if the taker sold.',
    'written_by', 'Transaction id of the insert. Meaningless on another cluster.'
)
FROM unnest(ARRAY['market.agg_trades', 'market.trades']::regclass []) AS r;

SELECT pg_temp.describe(
    'market.agg_trades',
    'One row per aggregate trade: the fills of one taker order at one price.',
    'day', 'UTC day of trade_time; partition key.',
    'agg_trade_id', 'Id of the aggregate trade; contiguous for each symbol.',
    'first_trade_id', 'Id of its first trade.',
    'last_trade_id', 'Id of its last trade.'
);

SELECT pg_temp.describe(
    'market.trades',
    'One row per trade.',
    'day', 'UTC day of trade_time; partition key.',
    'trade_id', 'Id of the trade; contiguous for each spot symbol.',
    'quote_quantity', 'Amount in quote asset, as the exchange rounded it; null if the source does not send it.',
    'trade_type', 'Field X of USD-M''s trade stream: MARKET, INSURANCE_FUND, ADL. Candles count only MARKET. Null if the source does not send it (spot, REST, files), and for rows stored before this column existed.'
);

SELECT pg_temp.describe(
    'market.book_tickers',
    'One row per change of the best bid or ask.',
    'day', 'UTC day of event_time, or of received_at where that is null; partition key.',
    'update_id', 'Id of the order book update.',
    'bid_price', 'Best bid price, in quote asset.',
    'bid_quantity', 'Quantity at the best bid, in base asset.',
    'ask_price', 'Best ask price, in quote asset.',
    'ask_quantity', 'Quantity at the best ask, in base asset.',
    'event_time', 'Event time, by the exchange; null for spot, whose frames have no time.',
    'received_at', 'When the frame was received.'
);

SELECT pg_temp.describe(
    'market.liquidations',
    'Sample of liquidations: the exchange sends at most one a second and symbol, the latest. Sums and counts are no totals. Futures only.',
    'day', 'UTC day of order_time; partition key.',
    'liquidation_id', 'Key within the symbol: order_time in ms * 2^21, plus a hash of the other values of the order. The exchange sends no id.',
    'order_time', 'Time of the order, by the exchange.',
    'event_time', 'Time of the message, by the exchange.',
    'received_at', 'When the frame was received.',
    'side', 'SELL closes a long position, BUY a short one.',
    'order_type', 'Type of the order, by the exchange; so far LIMIT.',
    'time_in_force', 'Validity of the order, by the exchange; so far IOC.',
    'price', 'Limit of the order: the bankruptcy price of the position, in quote asset.',
    'average_price', 'Average price of the fills so far, in quote asset.',
    'quantity', 'Quantity of the order, in base asset; on COIN-M in contracts. One of a sample: not to be summed as a total.',
    'last_filled_quantity', 'Quantity of the last fill, in the unit of quantity.',
    'accumulated_quantity', 'Quantity of all fills so far, in the unit of quantity. One of a sample: not to be summed as a total.',
    'order_status', 'Status of the order, by the exchange, such as FILLED or PARTIALLY_FILLED.'
);

SELECT pg_temp.describe(
    r, NULL,
    'last_update_id', 'Id of the last order book update that is included.',
    'bid_prices', 'Prices of bids, in quote asset.',
    'bid_quantities', 'Quantity at each of bid_prices, in base asset.',
    'ask_prices', 'Prices of asks, in quote asset.',
    'ask_quantities', 'Quantity at each of ask_prices, in base asset.'
)
FROM unnest(ARRAY['market.depth_diffs', 'market.depth_snapshots']::regclass []) AS r;

SELECT pg_temp.describe(
    'market.depth_diffs',
    'One row per diff of an order book: the levels that changed, with their new quantities; 0 removes a level.',
    'day', 'UTC day of event_time; partition key.',
    'first_update_id', 'Id of the first update in the diff. On spot it follows last_update_id of the diff before.',
    'previous_update_id', 'last_update_id of the diff before, by the exchange; null on spot, where ids are contiguous.',
    'event_time', 'Event time, by the exchange.',
    'transaction_time', 'Time of the change, by the exchange; null for spot, which sends none.',
    'received_at', 'When the frame was received.'
);

SELECT pg_temp.describe(
    'market.depth_snapshots',
    'One row per snapshot of an order book: its best levels, best first.',
    'day', 'UTC day of at_time; partition key.',
    'source', 'rest (the exchange''s answer), or checkpoint (the streamer''s book at the start of a minute).',
    'at_time', 'From this event time on, the book is this snapshot and the diffs with greater ids.',
    'bid_reach', 'Down to this price no bid is missing; null: all bids are listed.',
    'ask_reach', 'Up to this price no ask is missing; null: all asks are listed.'
);

SELECT pg_temp.describe(
    'ops.archived_partitions',
    'One row per UTC day and dataset of the raw capture that was written to a Parquet file.',
    'dataset', 'The table of raw capture.',
    'day', 'UTC day.',
    'path', 'Path of the file, relative to the archive folder.',
    'rows', 'Number of rows in the file.',
    'bytes', 'Size of the file.',
    'fingerprint', 'ops.raw_fingerprint() of the archived rows. Another value now means that the partition has changed.',
    'content_sha256', 'SHA-256 of all values as CSV, in key order; the file was read back and had the same hash.',
    'archived_at', 'When the file was written.',
    'dropped_at', 'When the partition was dropped; null while it exists and contains every row of the file.',
    'kept_until', 'A restored partition is not dropped before this time; null: no limit.'
);

-- Ledgers

SELECT pg_temp.describe(
    'ops.gaps',
    'One row per range of one symbol that the streamer missed, from detection to repair.',
    'id', 'Identifies the gap.',
    'dataset', 'The incomplete table of schema market: candles_1m or one of raw capture.',
    'from_time', 'Start of the range.',
    'to_time', 'End of the range, exclusive.',
    'cause', 'Why data is missing; docs/data-contract.md lists the causes.',
    'opened_at', 'When the gap was detected.',
    'claimed_at', 'Start of the latest repair attempt.',
    'claimed_by', 'Process of the latest repair attempt.',
    'attempts', 'Number of repair attempts.',
    'repaired_at', 'When the last minute was proven complete; null while the gap is open.',
    'repaired_by', 'What proved the minutes: kline, rest, both, or rows (found in the table later).',
    'detail', 'Further facts, such as the number of missing rows or the reason for giving up.'
);

SELECT pg_temp.describe(
    'ops.outages',
    'Minutes without rows because the exchange did not trade. One row per market, symbol and cause.',
    'id', 'Identifies the row.',
    'market', 'spot or um.',
    'symbol', 'Platform symbol; null: all symbols of the market.',
    'minutes', 'The minutes.',
    'cause', 'Why the exchange did not trade.',
    'recorded_at', 'When the row was first written.'
);

SELECT pg_temp.describe(
    'ops.dump_files',
    'One row per dump file and checksum. A file that is published again with other content gets another row.',
    'path', 'Path below the exchange''s archive; SYMBOL/name for a user''s file.',
    'checksum', 'SHA-256 of the file.',
    'symbol', 'Platform symbol.',
    'kind', 'klines, agg_trades or trades; klines_1h and so on for files that are only compared.',
    'published_at', 'When the exchange published the file.',
    'fetched_at', 'When the file was downloaded.',
    'rows', 'Number of rows in the file.',
    'rejected', 'Number of unusable rows; see ops.rejected_rows.',
    'time_unit', 'Unit of the times in the file: ms or us.',
    'verdict', 'Result: loaded; missing, wrong_checksum, corrupt, unreachable or refused; for users'' files importing (begun; if no import runs, it was interrupted), imported, empty or refused.',
    'detail', 'Further facts, such as the range of the rows or the source that replaced the file.'
);

SELECT pg_temp.describe(
    'ops.rejected_rows',
    'One row per unusable line of a file.',
    'id', 'Identifies the row.',
    'file', 'Path of the dump file; SYMBOL/name for a user''s file.',
    'origin', 'Tells users'' files of one name apart: the file''s folder; for the inbox, the folder and the start of the file''s SHA-256. Empty for dump files.',
    'line', 'Line number in the file, from 1.',
    'reason', 'Why the line is unusable.',
    'raw', 'Text of the line.',
    'at', 'When the line was read.'
);

SELECT pg_temp.describe(
    'ops.reconciliations',
    'One row per symbol and UTC day: the comparison of live path, REST, daily file and monthly file.',
    'day', 'UTC day.',
    'verdict', 'agrees: complete, no source differs. differs: at least one does, see ops.discrepancies. incomplete: a source is missing, none differs so far.',
    'is_complete', 'Whether every expected minute is verified, and reported by REST, the daily file and, once published, the monthly file. Incomplete days are compared again.',
    'expected_minutes', 'Minutes that at least one source has a candle for.',
    'stored_minutes', 'Minutes with a row.',
    'verified_minutes', 'Minutes with a verified row.',
    'outage_minutes', 'Minutes in ops.outages.',
    'revised_minutes', 'Minutes whose values changed after they were first written.',
    'reconciled_at', 'When the day was last compared.'
);

SELECT pg_temp.describe(
    'ops.reconciliations', NULL,
    s.prefix || '_minutes', 'Minutes reported by ' || s.source || '.',
    s.prefix || '_differing', 'Minutes in which ' || s.source || ' reported other values than the stored row has.'
)
FROM (VALUES
    ('live', 'the live path'), ('rest', 'REST'), ('daily', 'the daily file'),
    ('monthly', 'the monthly file')
) AS s (prefix, source);

SELECT pg_temp.describe(
    'ops.weight_budget',
    'One row per host of the exchange: its request weight, shared by all processes.',
    'host', 'Host name.',
    'window_start', 'The clock minute (UTC) that used refers to.',
    'used', 'Request weight used in that minute.',
    'blocked_until', 'No requests before this time, as the exchange demanded by Retry-After.'
);

SELECT pg_temp.describe(
    'ops.alembic_version',
    'Revision of the schema, written by `candelabra migrate`.',
    'version_num', 'The revision.'
);

-- Change log

SELECT pg_temp.describe(
    r, NULL,
    'changed_by', 'Transaction id.',
    'minutes', 'The changed minutes.'
)
FROM unnest(ARRAY[
    'ops.candle_changes', 'ops.status_changes', 'ops.coverage_changes', 'ops.trade_changes'
]::regclass []) AS r;

SELECT pg_temp.describe(
    'ops.candle_changes',
    'Change log of candles: minutes whose values, trade ids or outages changed, by transaction. New since a snapshot: changed_by >= pg_snapshot_xmin(old) AND NOT pg_visible_in_snapshot(changed_by, old).'
);

SELECT pg_temp.describe(
    'ops.status_changes',
    'Minutes whose status changed while values and trade ids did not. Read like ops.candle_changes.'
);

SELECT pg_temp.describe(
    'ops.coverage_changes',
    'ops.candle_changes and ops.status_changes together.'
);

SELECT pg_temp.describe(
    'ops.trade_changes',
    'Minutes whose trades a transaction deleted or updated. Inserted trades have written_by instead; ops.changed_trades() reads both.',
    'dataset', 'agg_trades or trades.',
    'day', 'UTC day of the trades.'
);

SELECT pg_temp.describe(
    'ops.session_changes',
    'Sessions that a build of a trade mart rebuilt; the work list of marts built from that mart. Read like ops.candle_changes.',
    'changed_by', 'Transaction id of the build.',
    'relation', 'The mart that was built, as schema.table.',
    'symbol', 'Platform symbol; null: all sessions of all symbols.',
    'session', 'UTC day; null: all sessions of all symbols.',
    'minutes', 'Rebuilt minutes of the session; null: all sessions.'
);

SELECT pg_temp.describe(
    'ops.build_cursors',
    'Position of each reader of the change log.',
    'relation', 'The reader: a mart (schema.table), or quality.candles for the quality checks.',
    'target', 'dbt target, prod in production; quality for the quality checks.',
    'system_identifier', 'Cluster to which the snapshot belongs. On another cluster the cursor is void.',
    'snapshot', 'Changes of transactions that this snapshot sees have been processed.',
    'built_at', 'When the reader last advanced.'
);

-- Quality

SELECT pg_temp.describe(
    'ops.quality_runs',
    'One row per run of the quality checks.',
    'run_id', 'Airflow''s run id, or one that the command line made.',
    'run_at', 'When the run ended.',
    'scope', 'Checked rows: changed (since the previous run of this scope), all, or window (a time range).',
    'advances', 'Whether the next run of scope changed starts where this run ended.',
    'from_time', 'Start of the window, or end of the previous run; null: everything.',
    'to_time', 'End of the checked range, exclusive.',
    'success', 'Whether every rule of severity error passed.',
    'symbols', 'Number of symbols whose candles were checked.',
    'candles', 'Number of checked rows of market.candles_1m, including the neighbours of changed rows.',
    'trades', 'Number of checked rows of market.agg_trades and market.trades.',
    'took_ms', 'Duration of the run, in milliseconds.'
);

SELECT pg_temp.describe(
    'ops.quality_results',
    'One row per run and rule.',
    'id', 'Identifies the result.',
    'run_id', 'The run, of ops.quality_runs.',
    'run_at', 'When the results were written.',
    'suite', 'Rows that the rule is about: candles, trades, freshness, instruments, dump_files, gaps, coverage or verdicts.',
    'check_name', 'The rule; docs/quality.md explains each one.',
    'symbol', 'Always null: a rule covers all symbols. Each failing row names its own.',
    'success', 'Whether no row violates the rule.',
    'severity', 'error: a violation fails the run. warning: a violation is only recorded.',
    'observed', 'failing_count and the text of the rule.',
    'failing_rows', 'Up to 200 violating rows, spread over the symbols: symbol, open_time, key, detail.',
    'failing_count', 'Number of violating rows, including those not in failing_rows.'
);

SELECT pg_temp.describe(
    'ops.quality_failures',
    'One row per entry of ops.quality_results.failing_rows, at most 200 per run and rule.',
    'run_id', 'The run, of ops.quality_runs.',
    'run_at', 'When the results were written.',
    'suite', 'Rows that the rule is about.',
    'check_name', 'The violated rule.',
    'severity', 'error or warning.',
    'symbol', 'Symbol of the row; null if it has none.',
    'open_time', 'Open time of the candle, or first missing minute; for other rows the time that identifies them.',
    'key', 'What else identifies the row: id of a trade or gap, path of a file, source of a coverage.',
    'detail', 'What is wrong, with the values.'
);

-- Accounts

SELECT pg_temp.describe(
    'accounts.users',
    'One row per account, written by `candelabra user`.',
    'id', 'Identifies the account.',
    'name', 'Login name: lower-case letters, digits, dot, hyphen, underscore.',
    'password_hash', 'argon2id hash of the password, with salt and parameters.',
    'role', 'reader; or admin, who sees the other accounts and ends their sessions.',
    'created_at', 'When the account was created.',
    'password_changed_at', 'When the password was last set, which ended all sessions.',
    'disabled_at', 'When the account was disabled; null: enabled.'
);

SELECT pg_temp.describe(
    'accounts.sessions',
    'Current browser logins. Deleting a row ends the session immediately.',
    'id', 'Identifies the session.',
    'user_id', 'The account.',
    'secret_hash', 'SHA-256 of the cookie''s secret, which has 256 random bits.',
    'created_at', 'When the session started.',
    'expires_at', 'When the session ends.'
);

SELECT pg_temp.describe(
    'accounts.limits',
    'One row: what the owner allows, written by `candelabra migrate`.',
    'is_only', 'True; there is one row.',
    'session_hours', 'Longest session, in hours: SESSION_HOURS of the last migration.'
);

SELECT pg_temp.describe(
    'accounts.logins',
    'Audit log of logins, for 90 days: `candelabra user logins` shows it. Refused attempts of ten seconds are one row.',
    'id', 'Identifies the row.',
    'at', 'When the row was written.',
    'outcome', 'succeeded; failed: name or password was wrong, or the account is disabled; refused: too many attempts, password not checked.',
    'account', 'Name of the account; null: no account has the name that was typed.',
    'network', 'IPv4 address, or /64 of an IPv6 address; null if unknown.',
    'attempts', 'Number of attempts.'
);

SELECT pg_temp.describe(
    'accounts.tokens',
    'API tokens, written by `candelabra user token`. Deleting a row revokes the token immediately.',
    'id', 'Identifies the token.',
    'user_id', 'The account, whose rights the token has.',
    'label', 'Purpose of the token; unique for each account.',
    'secret_hash', 'SHA-256 of the token, which has 256 random bits and is shown once.',
    'created_at', 'When the token was created.',
    'expires_at', 'When the token expires; null: never.'
);

SELECT pg_temp.describe(
    'accounts.watched_symbols',
    'Watchlists: one row per account and symbol.',
    'user_id', 'The account.',
    'added_at', 'When the symbol was added.'
);

SELECT pg_temp.describe(
    'accounts.watched',
    'Symbols on the watchlist of at least one enabled account. Streamers can follow them.',
    'watchers', 'Number of accounts that watch the symbol.'
);

-- Derivative series

SELECT pg_temp.describe(
    r, NULL,
    'status', 'verified: the exchange''s own value. unconfirmed: aggregated from the stream. partial: a value is unknown, or seconds of the minute are missing.',
    'source', 'Origin of the row: rest, dump_daily, dump_monthly or stream. ops.series has their order.',
    'evidence_at', 'When the exchange published the values: publication of the file, server time of the REST answer, or event time of the last frame.',
    'revision', 'How often the values have changed.',
    'updated_at', 'When the row was inserted or its values last changed.'
)
FROM unnest(ARRAY[
    'market.funding_rates', 'market.mark_prices_1m', 'market.index_prices_1m',
    'market.premium_index_1m', 'market.open_interest_5m', 'market.trader_ratios_5m'
]::regclass []) AS r;

SELECT pg_temp.describe(
    'market.funding_rates',
    'One row per funding settlement of a perpetual contract.',
    'settles_at', 'Whole hour at which the settlement was due.',
    'funding_rate', 'Rate that longs paid to shorts, as a fraction of the position''s value.',
    'funding_time', 'The exchange''s time of the settlement: 0 to 11 ms after the hour. The dump files and REST may differ by 1 ms.',
    'mark_price', 'Mark price at the settlement. Null unless REST had it.',
    'interval_hours', 'Hours of the funding interval that ended. Null unless a dump file had it.'
);

SELECT pg_temp.describe(
    r, 'One row per symbol and minute of a price: ' || CASE r::text
        WHEN 'market.mark_prices_1m' THEN 'the mark price, at which positions are valued.'
        WHEN 'market.index_prices_1m' THEN 'the index price, an average of spot markets. All contracts of a pair have the same.'
        ELSE 'the premium index, the distance of the contract from its index, which may be negative.'
    END,
    'open_time', 'Start of the minute.',
    'open', 'First value of the minute.',
    'high', 'Highest value of the minute.',
    'low', 'Lowest value of the minute.',
    'close', 'Last value of the minute.'
)
FROM unnest(ARRAY[
    'market.mark_prices_1m', 'market.index_prices_1m', 'market.premium_index_1m'
]::regclass []) AS r;

SELECT pg_temp.describe(
    'market.open_interest_5m',
    'One row per symbol and five minutes: the open interest at that time, a sample.',
    'time', 'Time of the sample.',
    'open_interest', 'Open positions, in base asset; for COIN-M in contracts.',
    'open_interest_value', 'The same, valued at the mark price, in quote asset; for COIN-M in base asset. Null where the exchange''s cell is empty.'
);

SELECT pg_temp.describe(
    'market.trader_ratios_5m',
    'One row per symbol and five minutes: ratios of long to short and of taker buys to sells. Null where the exchange''s cell is empty.',
    'time', 'Time of the sample; the taker ratio covers the five minutes before it.',
    'top_trader_account_ratio', 'Accounts of top traders: net long divided by net short.',
    'top_trader_position_ratio', 'Positions of top traders: long divided by short.',
    'account_ratio', 'All accounts: net long divided by net short.',
    'taker_volume_ratio', 'Volume of taker buys divided by that of taker sells.'
);

SELECT pg_temp.describe(
    'ops.series',
    'One row per derivative series: what ops.merge_series() and ops.series_gaps() need to know of its table.',
    'series', 'Name of the series.',
    'relation', 'Its table in schema market.',
    'time_column', 'Column that is the key together with symbol.',
    'step', 'Distance of two rows; null if it varies.',
    'value_columns', 'Columns in which sources may contradict each other.',
    'value_units', 'For each of them, the largest difference that is only a matter of printed digits.',
    'carried_columns', 'Columns of the winner that are not compared.',
    'filled_columns', 'Columns that only some sources have; a known value stays.',
    'sources', 'Sources in ascending order: the last one wins.'
);

SELECT pg_temp.describe(
    'ops.series_coverage',
    'One row per series, symbol and source: times for which the source was asked and answered.',
    'series', 'Derivative series; see ops.series.',
    'source', 'rest, dump_daily or dump_monthly.',
    'times', 'Times that the source answered for, whether it had rows or not.'
);

SELECT pg_temp.describe(
    'ops.series_discrepancies',
    'One row per set of values that lost against the stored row of a derivative series.',
    'id', 'Identifies the row.',
    'series', 'Derivative series; see ops.series.',
    'time', 'Time of the row.',
    'found_at', 'When the contradiction was found.',
    'loser_source', 'Origin of the values that lost.',
    'loser_status', 'Their status.',
    'loser_evidence_at', 'When the exchange published them.',
    'loser_values', 'The values, by column.'
);

DROP FUNCTION pg_temp.describe(regclass, text, text []);
