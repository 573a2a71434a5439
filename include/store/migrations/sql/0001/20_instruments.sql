CREATE TABLE market.instruments (
    symbol text COLLATE "C" NOT NULL,
    listed_from timestamptz NOT NULL,
    listed_to timestamptz,
    market text COLLATE "C" NOT NULL CHECK (market IN ('spot', 'um')),
    exchange_symbol text COLLATE "C" NOT NULL,
    base_asset text COLLATE "C" NOT NULL,
    quote_asset text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    tick_size numeric NOT NULL CHECK (tick_size > 0),
    step_size numeric NOT NULL CHECK (step_size > 0),
    filters jsonb NOT NULL DEFAULT '{}',
    quote_volume_is_exact boolean NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, listed_from),
    CONSTRAINT instruments_market_fits_the_symbol CHECK (market = market.market_of(symbol)),
    CONSTRAINT instruments_listing_has_a_length CHECK (listed_to > listed_from)
);
CREATE UNIQUE INDEX instruments_one_open_listing ON market.instruments (symbol)
WHERE listed_to IS NULL;

CREATE TRIGGER log_listed AFTER INSERT OR DELETE ON market.instruments
FOR EACH ROW EXECUTE FUNCTION ops.log_relisting();

CREATE TRIGGER log_ended AFTER UPDATE ON market.instruments
FOR EACH ROW WHEN (
    (old.listed_from, old.listed_to) IS DISTINCT FROM (new.listed_from, new.listed_to)
)
EXECUTE FUNCTION ops.log_relisting();
