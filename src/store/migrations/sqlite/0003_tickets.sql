-- Tickets of the matchmaker. One that searches and has a match is claimed: that match is being made.
CREATE TABLE tickets (
    id BLOB PRIMARY KEY,            -- rises with time: the oldest first
    game TEXT NOT NULL,
    options TEXT NOT NULL,          -- JSON: equal texts agree
    players INTEGER NOT NULL,       -- how many begin such a match
    user_id BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('searching', 'matched', 'cancelled', 'expired')),
    match_id BLOB,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX tickets_searching_by_user ON tickets (user_id, game) WHERE state = 'searching';
CREATE INDEX tickets_searching ON tickets (id) WHERE state = 'searching';
CREATE INDEX tickets_by_user ON tickets (user_id);
CREATE INDEX tickets_by_expiry ON tickets (expires_at);
