-- What each column is, in the database itself: psql's \d+, BI tools and `dbt docs` show it. Applied
-- on every migration; only what differs is written, so that it usually takes no lock. Tables and
-- columns that a revision made together with their comments are not here.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        WITH same AS (
            SELECT unnest(t.relations)::text AS relation, t.name, t.said
            FROM (VALUES
                (
                    ARRAY[
                        'market.candles_1m', 'market.candles_1m_live', 'market.live_candles',
                        'market.instruments', 'market.agg_trades', 'market.trades',
                        'market.book_tickers', 'ops.offered_candles', 'ops.candle_changes',
                        'ops.coverage', 'ops.discrepancies', 'ops.gaps', 'ops.reconciliations',
                        'ops.verdicts'
                    ],
                    'symbol',
                    'Platform symbol, unique across markets: spot BTCUSDT, USD-M perpetual BTCUSDT.P.'
                ),
                (
                    ARRAY['market.agg_trades', 'market.trades', 'market.book_tickers'],
                    'day', 'UTC day of the trade or event; the table is partitioned by it.'
                ),
                (
                    ARRAY['market.agg_trades', 'market.trades'],
                    'price', 'Price, in quote asset.'
                ),
                (
                    ARRAY['market.agg_trades', 'market.trades'],
                    'quantity', 'Amount, in base asset.'
                ),
                (
                    ARRAY['market.agg_trades', 'market.trades'],
                    'trade_time', 'When the exchange traded it.'
                ),
                (
                    ARRAY['market.agg_trades', 'market.trades'],
                    'is_buyer_maker', 'True: the taker sold.'
                ),
                (ARRAY['ops.coverage', 'ops.reconciliations', 'ops.verdicts'], 'day', 'UTC day.')
            ) AS t (relations, name, said)
        ),

        candle_columns AS (
            SELECT r.relation, c.name, c.said
            FROM unnest(ARRAY[
                'market.candles_1m', 'market.candles_1m_live', 'market.live_candles',
                'ops.offered_candles'
            ]) AS r (relation)
            CROSS JOIN (VALUES
                ('open_time', 'Start of the minute, always a full one.'),
                ('open', 'Price of the first trade, in quote asset; of a silent minute the previous close.'),
                ('high', 'Highest price, in quote asset.'),
                ('low', 'Lowest price, in quote asset.'),
                ('close', 'Price of the last trade, in quote asset; of a silent minute the previous close.'),
                ('volume', 'Amount traded, in base asset.'),
                ('quote_volume', 'Amount traded, in quote asset; null in live candles where the exchange rounds each fill.'),
                ('trade_count', 'Number of trades; 0: nobody traded.'),
                ('taker_buy_volume', 'Part of volume that takers bought, in base asset.'),
                ('taker_buy_quote_volume', 'Part of quote_volume that takers bought, in quote asset.'),
                ('first_trade_id', 'Id of the first trade, where a source told it with these values.'),
                ('last_trade_id', 'Id of the last trade, where a source told it with these values.')
            ) AS c (name, said)
        ),

        loser_columns AS (
            SELECT
                'ops.discrepancies' AS relation,
                'loser_' || c.name AS name,
                'The losing offer''s ' || c.name || '.' AS said
            FROM unnest(ARRAY[
                'source', 'status', 'evidence_at', 'open', 'high', 'low', 'close', 'volume',
                'quote_volume', 'trade_count', 'taker_buy_volume', 'taker_buy_quote_volume',
                'first_trade_id', 'last_trade_id'
            ]) AS c (name)
        ),

        compared_columns AS (
            SELECT 'ops.reconciliations' AS relation, w.name || c.suffix AS name, c.said || w.said || '.' AS said
            FROM (VALUES
                ('live', 'the live path'), ('rest', 'REST'), ('daily', 'the daily file'),
                ('monthly', 'the monthly file')
            ) AS w (name, said)
            CROSS JOIN (VALUES
                ('_minutes', 'Minutes told by '),
                ('_differing', 'Minutes that differ from the rows that won, of those told by ')
            ) AS c (suffix, said)
        ),

        each AS (
            SELECT * FROM (VALUES
                ('market.candles_1m', 'status', 'How sure the row is: verified (the exchange''s own, or equal to it), unconfirmed (folded from contiguous trades, or of a user''s file), partial (known to miss trades).'),
                ('market.candles_1m', 'source', 'What the row rests on: rest, dump_daily, dump_monthly, kline, stream, folded or file.'),
                ('market.candles_1m', 'source_rank', 'Rank of that evidence: rest 80, dump_daily 70, dump_monthly 60, kline 50, stream 40, folded 30, file 20; partial rows 10.'),
                ('market.candles_1m_live', 'status', 'As in candles_1m, or live (the open candle), or closed (waiting for confirmation).'),
                ('market.candles_1m_live', 'source', 'As in candles_1m; of live and closed candles stream.'),
                ('market.candles_1m_live', 'revision', 'As in candles_1m; of live and closed candles 0.'),
                ('market.candles_1m_live', 'updated_at', 'When the values were written.'),
                ('market.live_candles', 'is_closed', 'Whether its minute is over.'),
                ('market.live_candles', 'event_time', 'The exchange''s time of the newest frame.'),
                ('market.live_candles', 'updated_at', 'When it was written.'),
                ('market.instruments', 'market', 'spot, or um: USD-margined futures.'),
                ('market.instruments', 'exchange_symbol', 'The name that the exchange uses.'),
                ('market.instruments', 'base_asset', 'What is traded.'),
                ('market.instruments', 'quote_asset', 'What it is priced in.'),
                ('market.instruments', 'status', 'The exchange''s word: TRADING, BREAK and so on.'),
                ('market.instruments', 'tick_size', 'Smallest step of the price, in quote asset.'),
                ('market.instruments', 'step_size', 'Smallest step of the quantity, in base asset.'),
                ('market.instruments', 'filters', 'All filters of orders by type, with numbers as the exchange writes them.'),
                ('market.instruments', 'quote_volume_is_foldable', 'False where the exchange rounds each fill: a fold of trades cannot give the quote volume.'),
                ('market.instruments', 'seen_at', 'Server time of the newest answer that showed it.'),
                ('market.agg_trades', 'agg_trade_id', 'The exchange''s id; contiguous for each symbol.'),
                ('market.agg_trades', 'first_trade_id', 'Id of its first trade.'),
                ('market.agg_trades', 'last_trade_id', 'Id of its last trade.'),
                ('market.trades', 'trade_id', 'The exchange''s id; contiguous on spot.'),
                ('market.trades', 'quote_quantity', 'Amount in quote asset, the exchange''s own; null where it does not tell.'),
                ('market.book_tickers', 'update_id', 'The exchange''s id of the change of the book.'),
                ('market.book_tickers', 'bid_price', 'Best bid, in quote asset.'),
                ('market.book_tickers', 'bid_quantity', 'Amount bid there, in base asset.'),
                ('market.book_tickers', 'ask_price', 'Best ask, in quote asset.'),
                ('market.book_tickers', 'ask_quantity', 'Amount asked there, in base asset.'),
                ('market.book_tickers', 'event_time', 'The exchange''s time; null on spot, whose frames carry none.'),
                ('market.book_tickers', 'received_at', 'When it was received.'),
                ('ops.alembic_version', 'version_num', 'Revision of the schema.'),
                ('ops.archived_partitions', 'dataset', 'Table of raw capture.'),
                ('ops.archived_partitions', 'day', 'UTC day.'),
                ('ops.archived_partitions', 'rows', 'Rows in the file.'),
                ('ops.archived_partitions', 'bytes', 'Size of the file.'),
                ('ops.archived_partitions', 'archived_at', 'When the file was written.'),
                ('ops.build_cursors', 'relation', 'Who reads the change log: a mart (schema.table), or a check.'),
                ('ops.build_cursors', 'target', 'dbt''s target; production is prod.'),
                ('ops.build_cursors', 'system_identifier', 'The cluster in which the snapshot means something.'),
                ('ops.build_cursors', 'snapshot', 'Transactions whose changes it has seen.'),
                ('ops.build_cursors', 'built_at', 'When it read them.'),
                ('ops.candle_changes', 'changed_by', 'The transaction.'),
                ('ops.candle_changes', 'minutes', 'The minutes, a set.'),
                ('ops.coverage', 'source', 'Who spoke: rest, dump_daily, dump_monthly, kline, stream, folded or file.'),
                ('ops.coverage', 'minutes', 'The minutes of the day about which it has spoken, a set.'),
                ('ops.discrepancies', 'id', 'Identifies the row.'),
                ('ops.discrepancies', 'open_time', 'Start of the minute.'),
                ('ops.discrepancies', 'found_at', 'When the two met.'),
                ('ops.discrepancies', 'winner_source', 'Source of the row that won, at that time.'),
                ('ops.discrepancies', 'winner_status', 'Its status, at that time.'),
                ('ops.discrepancies', 'winner_evidence_at', 'Its evidence_at, at that time.'),
                ('ops.dump_files', 'path', 'Path of the file below the exchange''s archive, or SYMBOL/name of a file of yours.'),
                ('ops.dump_files', 'checksum', 'SHA-256; a re-issued file has another.'),
                ('ops.dump_files', 'symbol', 'Platform symbol.'),
                ('ops.dump_files', 'kind', 'klines, agg_trades, trades; klines_1h and so on for files that are only compared.'),
                ('ops.dump_files', 'published_at', 'When the exchange published it.'),
                ('ops.dump_files', 'fetched_at', 'When it was downloaded.'),
                ('ops.dump_files', 'rows', 'Rows in it.'),
                ('ops.dump_files', 'rejected', 'Rows that could not be used; see ops.rejected_rows.'),
                ('ops.dump_files', 'time_unit', 'Unit of its times: ms or us.'),
                ('ops.dump_files', 'verdict', 'What became of it.'),
                ('ops.dump_files', 'detail', 'More about that.'),
                ('ops.gaps', 'id', 'Identifies the gap.'),
                ('ops.gaps', 'from_time', 'Start of what was missed.'),
                ('ops.gaps', 'to_time', 'Its end, exclusive.'),
                ('ops.gaps', 'cause', 'What happened.'),
                ('ops.gaps', 'opened_at', 'When it was noticed.'),
                ('ops.gaps', 'claimed_at', 'When its repair was begun last.'),
                ('ops.gaps', 'claimed_by', 'Who began it.'),
                ('ops.gaps', 'attempts', 'How often a repair was tried.'),
                ('ops.gaps', 'repaired_at', 'When all of it was proven; null: open.'),
                ('ops.gaps', 'detail', 'What is known besides.'),
                ('ops.offered_candles', 'status', 'As in market.candles_1m.'),
                ('ops.offered_candles', 'source', 'As in market.candles_1m.'),
                ('ops.offered_candles', 'source_rank', 'As in market.candles_1m.'),
                ('ops.offered_candles', 'evidence_at', 'As in market.candles_1m.'),
                ('ops.outages', 'id', 'Identifies the row.'),
                ('ops.outages', 'market', 'spot or um.'),
                ('ops.outages', 'symbol', 'Null: the whole market.'),
                ('ops.outages', 'minutes', 'The minutes, a set.'),
                ('ops.outages', 'cause', 'Why the exchange did not trade.'),
                ('ops.outages', 'recorded_at', 'When it was recorded.'),
                ('ops.quality_results', 'id', 'Identifies the result.'),
                ('ops.reconciliations', 'stored_minutes', 'Minutes stored.'),
                ('ops.reconciliations', 'verified_minutes', 'Of those, how many are verified.'),
                ('ops.reconciliations', 'outage_minutes', 'Minutes in outages.'),
                ('ops.reconciliations', 'revised_minutes', 'Stored minutes whose values changed after they were first written.'),
                ('ops.reconciliations', 'reconciled_at', 'When the day was compared.'),
                ('ops.rejected_rows', 'id', 'Identifies the row.'),
                ('ops.rejected_rows', 'file', 'Path of the dump, or SYMBOL/name of a file of yours.'),
                ('ops.rejected_rows', 'line', 'Line in the file, from 1.'),
                ('ops.rejected_rows', 'reason', 'Why it could not be used.'),
                ('ops.rejected_rows', 'raw', 'The line.'),
                ('ops.rejected_rows', 'at', 'When it was read.'),
                ('ops.verdicts', 'source', 'Who spoke.'),
                ('ops.verdicts', 'covered_minutes', 'Minutes of the day about which it has spoken.'),
                ('ops.verdicts', 'differing_minutes', 'Minutes in which it told other values than the rows have now.'),
                ('ops.verdicts', 'verdict', 'agrees (about the whole day), agrees_so_far or differs.'),
                ('ops.weight_budget', 'host', 'Host of the exchange.'),
                ('ops.weight_budget', 'window_start', 'The clock minute that used counts in.'),
                ('ops.weight_budget', 'used', 'Request weight used in that minute.'),
                ('ops.weight_budget', 'blocked_until', 'Until when the host asked for silence.')
            ) AS v (relation, name, said)
        )

        SELECT s.relation, s.name, s.said, a.attrelid, a.attnum
        FROM (
            SELECT relation, name, said FROM same
            UNION ALL SELECT relation, name, said FROM candle_columns
            UNION ALL SELECT relation, name, said FROM loser_columns
            UNION ALL SELECT relation, name, said FROM compared_columns
            UNION ALL SELECT relation, name, said FROM each
        ) AS s
        LEFT JOIN pg_attribute AS a ON a.attrelid = s.relation::regclass AND a.attname = s.name
        WHERE s.said IS DISTINCT FROM col_description(a.attrelid, a.attnum)
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', wanted.relation, wanted.name, wanted.said);
    END LOOP;
    IF obj_description('ops.alembic_version'::regclass, 'pg_class') IS NULL THEN
        COMMENT ON TABLE ops.alembic_version IS 'The revision of the schema; `candelabra migrate` writes it.';
    END IF;
END
$$;
