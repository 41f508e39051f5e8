-- What a match's log up to an event comes to, so that nobody need replay it all; the log stays whole,
-- and a match without a row here is rebuilt from it alone.
CREATE TABLE match_snapshots (
    match_id uuid PRIMARY KEY REFERENCES matches ON DELETE CASCADE,
    seq bigint NOT NULL,            -- of the last event that is in it
    state text NOT NULL
);
