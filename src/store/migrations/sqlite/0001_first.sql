-- Times are milliseconds since 1970 (UTC); ids are UUIDs as 16 bytes.

CREATE TABLE users (
    id BLOB PRIMARY KEY,
    username TEXT,                  -- as its owner writes it; NULL for a guest
    username_folded TEXT UNIQUE,    -- lower case: names that differ in case alone are one name
    display_name TEXT NOT NULL,
    password_hash TEXT,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Spent tokens stay as long as their session, so that a second use is noticed.
CREATE TABLE refresh_tokens (
    digest BLOB PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions ON DELETE CASCADE,
    spent INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- Sessions that ended before their last access token expired.
CREATE TABLE revocations (
    session_id BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE matches (
    id BLOB PRIMARY KEY,
    game TEXT NOT NULL,
    game_version TEXT NOT NULL,
    seed INTEGER NOT NULL,
    options TEXT NOT NULL,
    seats INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'running', 'ended')),
    visibility TEXT NOT NULL CHECK (visibility IN ('public', 'private')),
    join_code TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    outcome TEXT,
    snapshot TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX matches_by_state ON matches (state, id);
CREATE INDEX matches_by_game ON matches (game, id);
CREATE INDEX matches_by_game_and_state ON matches (game, state, id);

CREATE TABLE match_players (
    match_id BLOB NOT NULL REFERENCES matches ON DELETE CASCADE,
    seat INTEGER NOT NULL,
    user_id BLOB REFERENCES users ON DELETE SET NULL,
    PRIMARY KEY (match_id, seat)
) STRICT, WITHOUT ROWID;
CREATE INDEX match_players_by_user ON match_players (user_id, match_id);

CREATE TABLE match_events (
    match_id BLOB NOT NULL REFERENCES matches ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    seat INTEGER,
    command_id INTEGER,             -- of the seat's client; events of one command share it
    user_id BLOB REFERENCES users ON DELETE SET NULL,   -- who took the seat, in such an event
    structural INTEGER NOT NULL,    -- 1: the engine's own event, 0: the game's
    event TEXT NOT NULL,
    PRIMARY KEY (match_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX match_events_by_user ON match_events (user_id) WHERE user_id IS NOT NULL;
