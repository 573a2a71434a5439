CREATE TABLE accounts.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    role text NOT NULL CHECK (role IN ('reader', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

CREATE TABLE accounts.sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_of_a_user ON accounts.sessions (user_id);
CREATE INDEX sessions_by_end ON accounts.sessions (expires_at);

CREATE TABLE accounts.tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    label text NOT NULL CHECK (length(label) BETWEEN 1 AND 64),
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    UNIQUE (user_id, label)
);

CREATE TABLE accounts.watched_symbols (
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    symbol text NOT NULL CHECK (symbol ~ '^[^[:space:]*?]{1,64}$'),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, symbol)
);

CREATE TRIGGER notify_watchlists
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON accounts.watched_symbols
FOR EACH STATEMENT EXECUTE FUNCTION accounts.notify_watchlists();

CREATE TRIGGER notify_users
AFTER UPDATE OR DELETE ON accounts.users
FOR EACH STATEMENT EXECUTE FUNCTION accounts.notify_users();

CREATE TRIGGER notify_access
AFTER DELETE ON accounts.sessions
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION accounts.notify_access();

CREATE TRIGGER notify_access
AFTER DELETE ON accounts.tokens
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION accounts.notify_access();
