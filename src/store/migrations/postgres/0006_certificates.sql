-- What a node shows that takes TLS: SHA-256 of its certificate. NULL: it is reached in the clear.
ALTER TABLE nodes ADD COLUMN certificate bytea;
