-- What a match's log up to an event comes to, so that nobody need replay it all; the log stays whole,
-- and a match without a row here is rebuilt from it alone.
CREATE TABLE match_snapshots (
    match_id BLOB PRIMARY KEY REFERENCES matches ON DELETE CASCADE,
    seq INTEGER NOT NULL,           -- of the last event that is in it
    state TEXT NOT NULL
) STRICT, WITHOUT ROWID;
