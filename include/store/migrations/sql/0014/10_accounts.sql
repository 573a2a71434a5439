-- Who may ask, and what they watch. A schema of its own: roles that read market and ops must not
-- read what is here.
CREATE SCHEMA accounts;
COMMENT ON SCHEMA accounts IS 'Users of what is served, their sessions, tokens and watchlists. Nothing secret is kept: hashes alone.';

CREATE TABLE accounts.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    role text NOT NULL CHECK (role IN ('reader', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON TABLE accounts.users IS 'One row for each account; `candelabra user` writes it.';
COMMENT ON COLUMN accounts.users.id IS 'Identifies the account.';
COMMENT ON COLUMN accounts.users.name IS 'What is typed at the login: small letters, digits, dot, hyphen, underscore.';
COMMENT ON COLUMN accounts.users.password_hash IS 'The password by argon2id, with its salt and parameters.';
COMMENT ON COLUMN accounts.users.role IS 'reader, or admin: sees the other accounts and ends their sessions.';
COMMENT ON COLUMN accounts.users.created_at IS 'When the account was made.';
COMMENT ON COLUMN accounts.users.password_changed_at IS 'When its password was set last; all sessions ended then.';
COMMENT ON COLUMN accounts.users.disabled_at IS 'Since when it may not be used; null: it may.';

CREATE TABLE accounts.sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_of_a_user ON accounts.sessions (user_id);
CREATE INDEX sessions_by_end ON accounts.sessions (expires_at);
COMMENT ON TABLE accounts.sessions IS 'Logins of browsers that are not over. Deleting one ends it at once.';
COMMENT ON COLUMN accounts.sessions.id IS 'Identifies the session.';
COMMENT ON COLUMN accounts.sessions.user_id IS 'Whose it is.';
COMMENT ON COLUMN accounts.sessions.secret_hash IS 'SHA-256 of what the cookie holds, 256 random bits.';
COMMENT ON COLUMN accounts.sessions.created_at IS 'When it began.';
COMMENT ON COLUMN accounts.sessions.expires_at IS 'When it ends.';

CREATE TABLE accounts.tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    label text NOT NULL CHECK (length(label) BETWEEN 1 AND 64),
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    UNIQUE (user_id, label)
);
COMMENT ON TABLE accounts.tokens IS 'API tokens of programs; `candelabra user token` writes it. Deleting one revokes it at once.';
COMMENT ON COLUMN accounts.tokens.id IS 'Identifies the token.';
COMMENT ON COLUMN accounts.tokens.user_id IS 'Whose it is: it may what that account may.';
COMMENT ON COLUMN accounts.tokens.label IS 'What it is for; told apart by it.';
COMMENT ON COLUMN accounts.tokens.secret_hash IS 'SHA-256 of the token, 256 random bits, which was shown once.';
COMMENT ON COLUMN accounts.tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN accounts.tokens.expires_at IS 'When it ends; null: never by itself.';

CREATE TABLE accounts.watched_symbols (
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    symbol text NOT NULL CHECK (symbol ~ '^[^[:space:]*?]{1,64}$'),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, symbol)
);
COMMENT ON TABLE accounts.watched_symbols IS 'Watchlists: one row for each account and symbol.';
COMMENT ON COLUMN accounts.watched_symbols.user_id IS 'Who watches.';
COMMENT ON COLUMN accounts.watched_symbols.symbol IS 'Platform symbol, such as BTCUSDT or BTCUSDT.P.';
COMMENT ON COLUMN accounts.watched_symbols.added_at IS 'Since when.';

-- All that the streamer may know of accounts.
CREATE VIEW accounts.watched AS
SELECT
    w.symbol,
    count(*) AS watchers
FROM accounts.watched_symbols AS w
INNER JOIN accounts.users AS u ON w.user_id = u.id
WHERE u.disabled_at IS NULL
GROUP BY w.symbol;
COMMENT ON VIEW accounts.watched IS 'What somebody watches whose account is not disabled: streamers follow it.';
COMMENT ON COLUMN accounts.watched.symbol IS 'Platform symbol.';
COMMENT ON COLUMN accounts.watched.watchers IS 'Accounts that watch it.';
