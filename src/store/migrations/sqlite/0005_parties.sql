-- Tickets of players who want to be on one match: those of a party have its code, and wait for each
-- other until it is whole.
ALTER TABLE tickets ADD COLUMN party_code TEXT;
ALTER TABLE tickets ADD COLUMN party_size INTEGER;
