-- COIN-M futures, and dated contracts. The terms of a contract are null on spot.
ALTER TABLE market.instruments
DROP CONSTRAINT instruments_market_check,
ADD CONSTRAINT instruments_market_check CHECK (market IN ('spot', 'um', 'cm')),
ADD COLUMN contract_type text COLLATE "C",
ADD COLUMN contract_size numeric CHECK (contract_size > 0),
ADD COLUMN margin_asset text COLLATE "C",
ADD COLUMN pair text COLLATE "C",
ADD COLUMN delivers_at timestamptz,
ADD COLUMN settlement_price numeric CHECK (settlement_price > 0),
ADD CONSTRAINT instruments_contracts_have_a_size CHECK (
    market <> 'cm' OR contract_size IS NOT NULL
);

ALTER TABLE ops.outages
DROP CONSTRAINT outages_market_check,
ADD CONSTRAINT outages_market_check CHECK (market IN ('spot', 'um', 'cm'));
