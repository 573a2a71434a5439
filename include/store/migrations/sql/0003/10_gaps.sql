ALTER TABLE ops.gaps ADD COLUMN repaired_by text COLLATE "C";
COMMENT ON COLUMN ops.gaps.repaired_by IS
'What proved its minutes: kline, rest, both, or rows (found in the table afterwards).';
