-- Times are milliseconds since 1970 (UTC).

CREATE TABLE users (
    id uuid PRIMARY KEY,
    username text,                  -- as its owner writes it; NULL for a guest
    username_folded text UNIQUE,    -- lower case: names that differ in case alone are one name
    display_name text NOT NULL,
    password_hash text,
    created_at bigint NOT NULL
);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at bigint NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Spent tokens stay as long as their session, so that a second use is noticed.
CREATE TABLE refresh_tokens (
    digest bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    spent boolean NOT NULL DEFAULT false
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- Sessions that ended before their last access token expired.
CREATE TABLE revocations (
    session_id uuid PRIMARY KEY,
    until bigint NOT NULL
);

CREATE TABLE matches (
    id uuid PRIMARY KEY,
    game text NOT NULL,
    game_version text NOT NULL,
    seed bigint NOT NULL,
    options text NOT NULL,
    seats smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'running', 'ended')),
    visibility text NOT NULL CHECK (visibility IN ('public', 'private')),
    join_code text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    seq bigint NOT NULL,
    outcome text,
    snapshot text
);
CREATE INDEX matches_by_state ON matches (state, id);
CREATE INDEX matches_by_game ON matches (game, id);
CREATE INDEX matches_by_game_and_state ON matches (game, state, id);

CREATE TABLE match_players (
    match_id uuid NOT NULL REFERENCES matches ON DELETE CASCADE,
    seat smallint NOT NULL,
    user_id uuid REFERENCES users ON DELETE SET NULL,
    PRIMARY KEY (match_id, seat)
);
CREATE INDEX match_players_by_user ON match_players (user_id, match_id);

CREATE TABLE match_events (
    match_id uuid NOT NULL REFERENCES matches ON DELETE CASCADE,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    seat smallint,
    command_id bigint,              -- of the seat's client; events of one command share it
    user_id uuid REFERENCES users ON DELETE SET NULL,   -- who took the seat, in such an event
    structural boolean NOT NULL,    -- the engine's own event, or the game's
    event text NOT NULL,
    PRIMARY KEY (match_id, seq)
);
CREATE INDEX match_events_by_user ON match_events (user_id) WHERE user_id IS NOT NULL;

-- What all nodes share: the keys of access tokens.
CREATE TABLE secrets (
    name text PRIMARY KEY,
    value text NOT NULL
);
