-- The code of plugins by the SHA-256 that matches have as their `game_version`: whoever plays a match
-- needs the very rules that it began with.
CREATE TABLE modules (
    version text PRIMARY KEY,
    code    bytea NOT NULL
);
-- It is compressed by whoever made it, or not at all.
ALTER TABLE modules ALTER COLUMN code SET STORAGE EXTERNAL;
