-- What each table, view and column means, kept in the database: psql's \d+, BI tools and `dbt docs`
-- show it. Only a text that differs is written, so a repeated migration locks no table.
CREATE FUNCTION pg_temp.describe(relation regclass, about text, VARIADIC columns text [])
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
    FOR i IN 1 .. array_length(columns, 1) BY 2 LOOP
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

SELECT pg_temp.describe(
    'market.candles_1m',
    'One row per symbol and minute that the exchange was open: its nine values, and how they are known.',
    'status', 'How sure the row is: verified (the exchange''s own, or equal to it), unconfirmed (folded from contiguous trades, or of a user''s file), partial (known to miss trades).',
    'source', 'What the row rests on: rest, dump_daily, dump_monthly, kline, stream, trades or file.',
    'source_rank', 'Rank of that evidence: rest 80, dump_daily 70, dump_monthly 60, kline 50, stream 40, trades 30, file 20; partial rows 10.',
    'evidence_at', 'Time of the exchange''s evidence (publication of a file, server time of an answer, event time of a frame); null for folds and files of users.',
    'revision', 'How often the nine values changed after the row was first written.',
    'updated_at', 'When the present nine values were written; provenance alone does not move it.',
    'evidence_last_trade_id', 'For rows from folds: the last trade id of the fold that the row rests on (0: none), which ranks folds. The row''s own ids may come from another offer of the same values.'
);

SELECT pg_temp.describe(
    'market.live_candles',
    'The open candle of each symbol, and closed ones that wait for the exchange''s confirmation.',
    'is_closed', 'Whether its minute is over.',
    'event_time', 'The exchange''s time of the newest frame.',
    'updated_at', 'When it was written.'
);

SELECT pg_temp.describe(
    'market.candles_1m_live',
    'candles_1m and the candles not yet in it: status live (open) or closed (waiting for confirmation).',
    'status', 'As in candles_1m, or live (the open candle), or closed (waiting for confirmation).',
    'source', 'As in candles_1m; of live and closed candles stream.',
    'revision', 'As in candles_1m; of live and closed candles 0.',
    'updated_at', 'When the values were written.'
);

SELECT pg_temp.describe(
    'ops.candle_candidates',
    'The shape of the rows that ops.merge_candidates() takes from the temporary table "candidates"; always empty.',
    'status', 'As in market.candles_1m.',
    'source', 'As in market.candles_1m.',
    'source_rank', 'As in market.candles_1m.',
    'evidence_at', 'As in market.candles_1m.'
);

SELECT pg_temp.describe(
    'ops.discrepancies',
    'One row per offer whose nine values lost a minute to other values.',
    'id', 'Identifies the row.',
    'open_time', 'Start of the minute.',
    'found_at', 'When the two met.',
    'winner_source', 'Source of the row that won, at that time.',
    'winner_status', 'Its status, at that time.',
    'winner_evidence_at', 'Its evidence_at, at that time.',
    'stored_during', 'While the losing values stood in candles_1m under this source; empty if they lost on arrival.'
);

SELECT pg_temp.describe(
    'ops.coverage',
    'Which minutes of a UTC day each source has spoken about; a set, whose union is idempotent.',
    'source', 'Who spoke: rest, dump_daily, dump_monthly, kline, stream, trades or file.',
    'day', 'UTC day.',
    'minutes', 'The minutes of the day about which it has spoken, a set.'
);

SELECT pg_temp.describe(
    'ops.verdicts',
    'One row per symbol, UTC day and source: how many minutes it spoke about and in how many it differs from the stored rows.',
    'day', 'UTC day.',
    'source', 'Who spoke.',
    'covered_minutes', 'Minutes of the day about which it has spoken.',
    'differing_minutes', 'Minutes in which it told other values than the rows have now.',
    'verdict', 'agrees (about the whole day), agrees_so_far or differs.'
);

SELECT pg_temp.describe(
    'market.instruments',
    'One row per listing: a ticker that was delisted and used again has two. Nothing derived crosses a listing.',
    'listed_from', 'Start of trading where the exchange tells it, else 1970-01-01 for a symbol found listed and the time it came back for a later listing.',
    'listed_to', 'When the exchange no longer showed it; null: listed.',
    'market', 'spot, or um: USD-margined futures.',
    'exchange_symbol', 'The name that the exchange uses.',
    'base_asset', 'What is traded.',
    'quote_asset', 'What it is priced in.',
    'status', 'The exchange''s word: TRADING, BREAK and so on.',
    'tick_size', 'Smallest step of the price, in quote asset.',
    'step_size', 'Smallest step of the quantity, in base asset.',
    'filters', 'All filters of orders by type, with numbers as the exchange writes them.',
    'quote_volume_is_exact', 'False where the exchange rounds each fill: a fold of trades cannot give the quote volume.',
    'seen_at', 'Server time of the newest answer that showed it.'
);

SELECT pg_temp.describe(
    'market.agg_trades',
    'One row per aggregate trade: fills of one taker order at one price.',
    'day', 'UTC day of the trade or event; the table is partitioned by it.',
    'agg_trade_id', 'The exchange''s id; contiguous for each symbol.',
    'price', 'Price, in quote asset.',
    'quantity', 'Amount, in base asset.',
    'first_trade_id', 'Id of its first trade.',
    'last_trade_id', 'Id of its last trade.',
    'trade_time', 'When the exchange traded it.',
    'is_buyer_maker', 'True: the taker sold.',
    'written_by', 'Transaction that wrote the row; means nothing on another cluster.'
);

SELECT pg_temp.describe(
    'market.trades',
    'One row per trade; quote_quantity is the exchange''s own (rounded) amount where it tells it.',
    'day', 'UTC day of the trade or event; the table is partitioned by it.',
    'trade_id', 'The exchange''s id; contiguous on spot.',
    'price', 'Price, in quote asset.',
    'quantity', 'Amount, in base asset.',
    'quote_quantity', 'Amount in quote asset, the exchange''s own; null where it does not tell.',
    'trade_time', 'When the exchange traded it.',
    'is_buyer_maker', 'True: the taker sold.',
    'written_by', 'Transaction that wrote the row; means nothing on another cluster.'
);

SELECT pg_temp.describe(
    'market.book_tickers',
    'One row per change of the best bid and ask; spot frames carry no time, hence received_at.',
    'day', 'UTC day of the trade or event; the table is partitioned by it.',
    'update_id', 'The exchange''s id of the change of the book.',
    'bid_price', 'Best bid, in quote asset.',
    'bid_quantity', 'Amount bid there, in base asset.',
    'ask_price', 'Best ask, in quote asset.',
    'ask_quantity', 'Amount asked there, in base asset.',
    'event_time', 'The exchange''s time; null on spot, whose frames carry none.',
    'received_at', 'When it was received.'
);

SELECT pg_temp.describe(
    'ops.archived_partitions',
    'One row per UTC day of the raw capture that was written to a Parquet file below the archive folder.',
    'dataset', 'Table of raw capture.',
    'day', 'UTC day.',
    'path', 'The file, relative to the archive folder.',
    'rows', 'Rows in the file.',
    'bytes', 'Size of the file.',
    'fingerprint', 'ops.raw_fingerprint of the rows that were written: tells whether the partition has others now.',
    'content_sha256', 'SHA-256 of all values in the order of the key, as CSV; the file was read back and had the same.',
    'archived_at', 'When the file was written.',
    'dropped_at', 'When the partition was dropped; null: it is there and holds every row of the file.',
    'kept_until', 'A restored day is not dropped again before.'
);

SELECT pg_temp.describe(
    'ops.gaps',
    'Minutes from from_time up to but without to_time that were missed, why, and when they were repaired.',
    'id', 'Identifies the gap.',
    'from_time', 'Start of what was missed.',
    'to_time', 'Its end, exclusive.',
    'cause', 'What happened.',
    'opened_at', 'When it was noticed.',
    'claimed_at', 'When its repair was begun last.',
    'claimed_by', 'Who began it.',
    'attempts', 'How often a repair was tried.',
    'repaired_at', 'When all of it was proven; null: open.',
    'detail', 'What is known besides.',
    'dataset', 'Table of schema market that misses something: candles_1m, or one of the raw capture.',
    'repaired_by', 'What proved its minutes: kline, rest, both, or rows (found in the table afterwards).'
);

SELECT pg_temp.describe(
    'ops.outages',
    'Minutes without rows because the exchange did not trade; symbol null: the whole market. One row per market, symbol and cause, its minutes a set.',
    'id', 'Identifies the row.',
    'market', 'spot or um.',
    'symbol', 'Null: the whole market.',
    'minutes', 'The minutes, a set.',
    'cause', 'Why the exchange did not trade.',
    'recorded_at', 'When it was recorded.'
);

SELECT pg_temp.describe(
    'ops.dump_files',
    'One row per published state of a dump file; a re-issued file has another checksum and its own row.',
    'path', 'Path of the file below the exchange''s archive, or SYMBOL/name of a file of yours.',
    'checksum', 'SHA-256; a re-issued file has another.',
    'symbol', 'Platform symbol.',
    'kind', 'klines, agg_trades, trades; klines_1h and so on for files that are only compared.',
    'published_at', 'When the exchange published it.',
    'fetched_at', 'When it was downloaded.',
    'rows', 'Rows in it.',
    'rejected', 'Rows that could not be used; see ops.rejected_rows.',
    'time_unit', 'Unit of its times: ms or us.',
    'verdict', 'What became of it.',
    'detail', 'More about that.'
);

SELECT pg_temp.describe(
    'ops.rejected_rows',
    'Rows of files that could not be used, with file, line (from 1) and reason.',
    'id', 'Identifies the row.',
    'file', 'Path of the dump, or SYMBOL/name of a file of yours.',
    'line', 'Line in the file, from 1.',
    'reason', 'Why it could not be used.',
    'raw', 'The line.',
    'at', 'When it was read.'
);

SELECT pg_temp.describe(
    'ops.reconciliations',
    'One row per symbol and UTC day: what the live path, REST, the daily and the monthly file said about it, and in how many minutes each differs from the row that won.',
    'day', 'UTC day.',
    'verdict', 'agrees: complete, and nobody differs; differs: somebody does, see ops.discrepancies; incomplete: nobody differs so far.',
    'is_complete', 'Each expected minute is stored and verified, and REST, the daily file and, once it has spoken, the monthly one have told it. Days of which this is false are taken up again.',
    'expected_minutes', 'Minutes that REST, a file or the live path has a row for.',
    'stored_minutes', 'Minutes stored.',
    'verified_minutes', 'Of those, how many are verified.',
    'outage_minutes', 'Minutes in outages.',
    'revised_minutes', 'Stored minutes whose values changed after they were first written.',
    'reconciled_at', 'When the day was compared.'
);

SELECT pg_temp.describe(
    'ops.weight_budget',
    'Request weight used in the present clock minute of each host, and until when it asked for silence.',
    'host', 'Host of the exchange.',
    'window_start', 'The clock minute that used counts in.',
    'used', 'Request weight used in that minute.',
    'blocked_until', 'Until when the host asked for silence.'
);

SELECT pg_temp.describe(
    'ops.alembic_version',
    'The revision of the schema; `candelabra migrate` writes it.',
    'version_num', 'Revision of the schema.'
);

SELECT pg_temp.describe(
    'ops.candle_changes',
    'The work list of the marts: which minutes a transaction changed. Read with changed_by >= pg_snapshot_xmin(old) AND NOT pg_visible_in_snapshot(changed_by, old).',
    'changed_by', 'The transaction.',
    'minutes', 'The minutes, a set.'
);

SELECT pg_temp.describe(
    'ops.status_changes',
    'Which minutes a transaction gave another status but neither other values nor other trade ids. Read as ops.candle_changes.',
    'changed_by', 'The transaction.',
    'symbol', 'Platform symbol.',
    'minutes', 'The minutes, a set.'
);

SELECT pg_temp.describe(
    'ops.coverage_changes',
    'Which minutes a transaction changed in values or status, outages included: both logs.',
    'changed_by', 'The transaction.',
    'symbol', 'Platform symbol.',
    'minutes', 'The minutes, a set.'
);

SELECT pg_temp.describe(
    'ops.trade_changes',
    'Minutes of which a transaction deleted or changed trades; those it inserted say so themselves. Read through ops.changed_trades().',
    'changed_by', 'The transaction.',
    'dataset', 'agg_trades or trades.',
    'symbol', 'Whose trades.',
    'day', 'UTC day of the trades.',
    'minutes', 'Minutes of that day.'
);

SELECT pg_temp.describe(
    'ops.session_changes',
    'Which sessions a build of a mart of trades rebuilt; the work list of the marts built from it. Read as ops.candle_changes.',
    'changed_by', 'Transaction of the build.',
    'relation', 'The mart that was built, with its schema.',
    'symbol', 'Of the session; null: all of all symbols.',
    'session', 'UTC day; null: all of all symbols.',
    'minutes', 'Minutes of the session that were rebuilt; null where all sessions were.'
);

SELECT pg_temp.describe(
    'ops.build_cursors',
    'Up to which snapshot each mart has seen ops.candle_changes; void on another cluster.',
    'relation', 'Who reads the change log: a mart (schema.table), or a check.',
    'target', 'dbt''s target; production is prod.',
    'system_identifier', 'The cluster in which the snapshot means something.',
    'snapshot', 'Transactions whose changes it has seen.',
    'built_at', 'When it read them.'
);

SELECT pg_temp.describe(
    'ops.quality_results',
    'One row per run and rule that was held to.',
    'id', 'Identifies the result.',
    'run_id', 'The run, of ops.quality_runs: Airflow''s run id, or one of the command line.',
    'run_at', 'When the results were written.',
    'check_name', 'The rule; docs/quality.md says what each means and what to do.',
    'symbol', 'Null: over all symbols. Failing rows carry their own.',
    'success', 'Whether no row broke the rule.',
    'severity', 'error: a broken rule fails the run; warning: it is kept and shown.',
    'observed', 'failing_count, and the rule in words.',
    'failing_rows', 'The first rows that broke the rule, at most 200, of each symbol one before any second: symbol, open_time, key, detail.',
    'suite', 'Which rows the rule is about: candles, trades, freshness, instruments, dump_files, gaps, coverage or verdicts.',
    'failing_count', 'All rows that broke the rule, those beyond failing_rows too.'
);

SELECT pg_temp.describe(
    'ops.quality_failures',
    'One row per row that broke a rule of a run; those beyond the first 200 of a rule are counted in ops.quality_results alone.',
    'run_id', 'The run, of ops.quality_runs.',
    'run_at', 'When the results were written.',
    'suite', 'Which rows the rule is about.',
    'check_name', 'The rule that was broken.',
    'severity', 'error or warning.',
    'symbol', 'Of the row; null where it has none.',
    'open_time', 'Open time of the candle, or first missing minute; of other rows the time that names them.',
    'key', 'What else names the row: id of a trade or gap, path of a file, source of a coverage.',
    'detail', 'What is wrong, in words and figures.'
);

SELECT pg_temp.describe(
    'ops.quality_runs',
    'One row per run of the checks: what it looked at, and how long it took.',
    'run_id', 'As in ops.quality_results.',
    'run_at', 'When it ended.',
    'scope', 'changed: what changed since the last such run; all: every row; window: a span of time.',
    'advances', 'Whether the next run of scope changed goes on from here.',
    'from_time', 'Start of a window, or end of the run before; null: everything.',
    'to_time', 'Moment up to which minutes were looked at, itself not.',
    'success', 'Whether every rule of severity error was kept.',
    'symbols', 'Symbols whose candles were looked at.',
    'candles', 'Rows of market.candles_1m that were looked at, neighbours of changed ones among them.',
    'trades', 'Rows of market.agg_trades and market.trades that were looked at.',
    'took_ms', 'How long it took, in milliseconds.'
);

SELECT pg_temp.describe(
    'accounts.users',
    'One row for each account; `candelabra user` writes it.',
    'id', 'Identifies the account.',
    'name', 'What is typed at the login: small letters, digits, dot, hyphen, underscore.',
    'password_hash', 'The password by argon2id, with its salt and parameters.',
    'role', 'reader, or admin: sees the other accounts and ends their sessions.',
    'created_at', 'When the account was made.',
    'password_changed_at', 'When its password was set last; all sessions ended then.',
    'disabled_at', 'Since when it may not be used; null: it may.'
);

SELECT pg_temp.describe(
    'accounts.sessions',
    'Logins of browsers that are not over. Deleting one ends it at once.',
    'id', 'Identifies the session.',
    'user_id', 'Whose it is.',
    'secret_hash', 'SHA-256 of what the cookie holds, 256 random bits.',
    'created_at', 'When it began.',
    'expires_at', 'When it ends.'
);

SELECT pg_temp.describe(
    'accounts.tokens',
    'API tokens of programs; `candelabra user token` writes it. Deleting one revokes it at once.',
    'id', 'Identifies the token.',
    'user_id', 'Whose it is: it may what that account may.',
    'label', 'What it is for; told apart by it.',
    'secret_hash', 'SHA-256 of the token, 256 random bits, which was shown once.',
    'created_at', 'When it was made.',
    'expires_at', 'When it ends; null: never by itself.'
);

SELECT pg_temp.describe(
    'accounts.watched_symbols',
    'Watchlists: one row for each account and symbol.',
    'user_id', 'Who watches.',
    'symbol', 'Platform symbol, such as BTCUSDT or BTCUSDT.P.',
    'added_at', 'Since when.'
);

SELECT pg_temp.describe(
    'accounts.watched',
    'What somebody watches whose account is not disabled: streamers follow it.',
    'symbol', 'Platform symbol.',
    'watchers', 'Accounts that watch it.'
);

SELECT pg_temp.describe(
    r, NULL, 'symbol', 'Platform symbol, unique across markets: spot BTCUSDT, USD-M perpetual BTCUSDT.P.'
)
FROM unnest(ARRAY[
    'market.agg_trades', 'market.book_tickers', 'market.candles_1m', 'market.candles_1m_live', 'market.instruments', 'market.live_candles', 'market.trades', 'ops.candle_changes', 'ops.coverage', 'ops.discrepancies', 'ops.gaps', 'ops.candle_candidates', 'ops.reconciliations', 'ops.verdicts'
]::regclass []) AS r;

SELECT pg_temp.describe(
    r, NULL,
    'open_time', 'Start of the minute, always a full one.',
    'open', 'Price of the first trade, in quote asset; of a silent minute the previous close.',
    'high', 'Highest price, in quote asset.',
    'low', 'Lowest price, in quote asset.',
    'close', 'Price of the last trade, in quote asset; of a silent minute the previous close.',
    'volume', 'Amount traded, in base asset.',
    'quote_volume', 'Amount traded, in quote asset; null in live candles where the exchange rounds each fill.',
    'trade_count', 'Number of trades; 0: nobody traded.',
    'taker_buy_volume', 'Part of volume that takers bought, in base asset.',
    'taker_buy_quote_volume', 'Part of quote_volume that takers bought, in quote asset.',
    'first_trade_id', 'Id of the first trade, where a source told it with these values.',
    'last_trade_id', 'Id of the last trade, where a source told it with these values.'
)
FROM unnest(ARRAY[
    'market.candles_1m', 'ops.candle_candidates', 'market.live_candles', 'market.candles_1m_live'
]::regclass []) AS r;

SELECT pg_temp.describe('ops.discrepancies', NULL, 'loser_' || c, 'The losing offer''s ' || c || '.')
FROM unnest(ARRAY[
    'source', 'status', 'evidence_at', 'open', 'high', 'low', 'close', 'volume', 'quote_volume',
    'trade_count', 'taker_buy_volume', 'taker_buy_quote_volume', 'first_trade_id', 'last_trade_id'
]) AS c;

SELECT pg_temp.describe(
    'ops.reconciliations', NULL,
    w.name || '_minutes', 'Minutes told by ' || w.said || '.',
    w.name || '_differing',
    'Minutes that differ from the rows that won, of those told by ' || w.said || '.'
)
FROM (VALUES
    ('live', 'the live path'), ('rest', 'REST'), ('daily', 'the daily file'),
    ('monthly', 'the monthly file')
) AS w (name, said);

DROP FUNCTION pg_temp.describe(regclass, text, text []);
