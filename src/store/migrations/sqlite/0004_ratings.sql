-- How strong players are. Rows go with their accounts.
CREATE TABLE ratings (
    game TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    rating REAL NOT NULL,
    deviation REAL NOT NULL,
    volatility REAL NOT NULL,
    bucket REAL,                    -- rises with the rating: who share it are close together; NULL: not
                                    -- rated yet, as PostgreSQL may have left a player
    wins INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    draws INTEGER NOT NULL,
    rated_at INTEGER NOT NULL,
    PRIMARY KEY (game, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ratings_by_rank ON ratings (game, bucket, rating, user_id);
CREATE INDEX ratings_by_user ON ratings (user_id);

-- What the end of a match has made of ratings: JSON, NULL where it is not rated.
ALTER TABLE matches ADD COLUMN ratings TEXT;

-- How many players each bucket has, so that a rank is no count of all who are better.
CREATE TABLE rating_counts (
    game TEXT NOT NULL,
    bucket REAL NOT NULL,
    players INTEGER NOT NULL,
    PRIMARY KEY (game, bucket)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER ratings_inserted AFTER INSERT ON ratings WHEN NEW.bucket IS NOT NULL BEGIN
    INSERT INTO rating_counts VALUES (NEW.game, NEW.bucket, 1)
    ON CONFLICT DO UPDATE SET players = players + 1;
END;
CREATE TRIGGER ratings_deleted AFTER DELETE ON ratings BEGIN
    UPDATE rating_counts SET players = players - 1 WHERE game = OLD.game AND bucket = OLD.bucket;
END;
CREATE TRIGGER ratings_updated AFTER UPDATE OF bucket ON ratings
WHEN OLD.bucket IS NOT NEW.bucket BEGIN
    UPDATE rating_counts SET players = players - 1 WHERE game = OLD.game AND bucket = OLD.bucket;
    INSERT INTO rating_counts VALUES (NEW.game, NEW.bucket, 1)
    ON CONFLICT DO UPDATE SET players = players + 1;
END;
