CREATE TABLE accounts.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    role text NOT NULL CHECK (role IN ('reader', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

-- What the owner allows: serving processes cannot change it.
CREATE TABLE accounts.limits (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    session_hours integer NOT NULL DEFAULT 168 CHECK (session_hours BETWEEN 1 AND 8760)
);
INSERT INTO accounts.limits DEFAULT VALUES;

CREATE TABLE accounts.sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES accounts.users ON DELETE CASCADE,
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_of_a_user ON accounts.sessions (user_id);
CREATE INDEX sessions_by_end ON accounts.sessions (expires_at);

CREATE TRIGGER limit_session
BEFORE INSERT OR UPDATE ON accounts.sessions
FOR EACH ROW EXECUTE FUNCTION accounts.limit_session();

-- Rows are added only, but for the removal of old ones by the trigger.
CREATE TABLE accounts.logins (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    outcome text NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'refused')),
    account text,
    network cidr,
    attempts integer NOT NULL DEFAULT 1 CHECK (attempts > 0)
);
CREATE INDEX logins_by_time ON accounts.logins (at);
CREATE INDEX networks_of_an_account ON accounts.logins (account, network)
WHERE outcome = 'succeeded';
CREATE TRIGGER remove_old_logins
AFTER INSERT ON accounts.logins
FOR EACH STATEMENT EXECUTE FUNCTION accounts.remove_old_logins();

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
