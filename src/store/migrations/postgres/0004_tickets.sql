-- Tickets of the matchmaker. One that searches and has a match is claimed: a node makes that match.
CREATE TABLE tickets (
    id uuid PRIMARY KEY,            -- rises with time: the oldest first
    game text NOT NULL,
    options text NOT NULL,          -- JSON: equal texts agree
    players smallint NOT NULL,      -- how many begin such a match
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    state text NOT NULL CHECK (state IN ('searching', 'matched', 'cancelled', 'expired')),
    match_id uuid,
    node_id uuid,                   -- who has claimed it
    expires_at bigint NOT NULL
);
CREATE UNIQUE INDEX tickets_searching_by_user ON tickets (user_id, game) WHERE state = 'searching';
CREATE INDEX tickets_searching ON tickets (id) WHERE state = 'searching';
CREATE INDEX tickets_by_user ON tickets (user_id);
CREATE INDEX tickets_by_expiry ON tickets (expires_at);

-- How often something was done in the minute of that number. After a crash of the server it counts
-- from 0: that is worth not to write every request to the log of changes.
CREATE UNLOGGED TABLE rates (
    key bytea PRIMARY KEY,
    minute bigint NOT NULL,
    count bigint NOT NULL
);
