-- When each month of a symbol's marts was last compared with its minutes; the audit's work list.
CREATE TABLE ops.mart_audits (
    symbol text COLLATE "C" NOT NULL,
    month timestamptz NOT NULL,
    audited_at timestamptz NOT NULL,
    differing_bars integer NOT NULL CHECK (differing_bars >= 0),
    PRIMARY KEY (symbol, month)
);
