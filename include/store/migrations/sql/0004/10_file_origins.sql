-- Two users' files may have the same name; origin distinguishes them. It is empty for dump files, whose
-- paths differ, and in rows stored before.
ALTER TABLE ops.rejected_rows ADD COLUMN origin text COLLATE "C" NOT NULL DEFAULT '';
DROP INDEX ops.rejected_rows_one_per_reason;
CREATE UNIQUE INDEX rejected_rows_one_per_reason
ON ops.rejected_rows (file, origin, line, md5(reason), md5(raw));

ALTER TABLE market.foreign_candles_1m ADD COLUMN origin text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE market.foreign_candles_1m DROP CONSTRAINT foreign_candles_1m_pkey;
ALTER TABLE market.foreign_candles_1m ADD PRIMARY KEY (symbol, open_time, file, origin);
