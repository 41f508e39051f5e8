-- The code of plugins by the SHA-256 that matches have as their `game_version`: whoever plays a match
-- needs the very rules that it began with.
CREATE TABLE modules (
    version TEXT PRIMARY KEY,
    code    BLOB NOT NULL
) STRICT;
