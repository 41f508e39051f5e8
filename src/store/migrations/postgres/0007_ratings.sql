-- How strong players are. Rows go with their accounts. Names of games are in the order of their bytes,
-- as in a file, so that copies can be compared.
CREATE TABLE ratings (
    game text COLLATE "C" NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    rating double precision NOT NULL,
    deviation double precision NOT NULL,
    volatility double precision NOT NULL,
    bucket double precision,        -- rises with the rating: who share it are close together; NULL: not
                                    -- rated yet
    wins bigint NOT NULL,
    losses bigint NOT NULL,
    draws bigint NOT NULL,
    rated_at bigint NOT NULL,
    PRIMARY KEY (game, user_id)
);
CREATE INDEX ratings_by_rank ON ratings (game, bucket, rating, user_id);
CREATE INDEX ratings_by_user ON ratings (user_id);

-- What the end of a match has made of ratings: JSON, NULL where it is not rated.
ALTER TABLE matches ADD COLUMN ratings text;

-- How many players each bucket has, so that a rank is no count of all who are better. Each
-- connection counts in a stripe, so that few wait for each other; sums over the stripes are true.
CREATE TABLE rating_counts (
    game text COLLATE "C" NOT NULL,
    bucket double precision NOT NULL,
    stripe integer NOT NULL,
    players bigint NOT NULL,
    PRIMARY KEY (game, bucket, stripe)
);

-- Who is not rated yet is not counted, so whoever locks ratings has locked no count before. Locks are
-- taken in the order of the keys.
CREATE FUNCTION count_ratings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO rating_counts SELECT game, bucket, pg_backend_pid() % 8, count(*)
        FROM new_rows WHERE bucket IS NOT NULL GROUP BY game, bucket ORDER BY game, bucket
        ON CONFLICT (game, bucket, stripe)
        DO UPDATE SET players = rating_counts.players + excluded.players;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO rating_counts SELECT game, bucket, pg_backend_pid() % 8, -count(*)
        FROM old_rows WHERE bucket IS NOT NULL GROUP BY game, bucket ORDER BY game, bucket
        ON CONFLICT (game, bucket, stripe)
        DO UPDATE SET players = rating_counts.players + excluded.players;
    ELSE
        INSERT INTO rating_counts SELECT game, bucket, pg_backend_pid() % 8, sum(players)
        FROM (SELECT game, bucket, 1 AS players FROM new_rows
              UNION ALL SELECT game, bucket, -1 FROM old_rows) AS moved
        WHERE bucket IS NOT NULL
        GROUP BY game, bucket HAVING sum(players) <> 0 ORDER BY game, bucket
        ON CONFLICT (game, bucket, stripe)
        DO UPDATE SET players = rating_counts.players + excluded.players;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ratings_inserted AFTER INSERT ON ratings REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_ratings();
CREATE TRIGGER ratings_deleted AFTER DELETE ON ratings REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_ratings();
CREATE TRIGGER ratings_updated AFTER UPDATE ON ratings
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_ratings();
