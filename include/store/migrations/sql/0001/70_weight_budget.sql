CREATE TABLE ops.weight_budget (
    host text COLLATE "C" PRIMARY KEY,
    window_start timestamptz NOT NULL,
    used integer NOT NULL CHECK (used >= 0),
    blocked_until timestamptz
);
