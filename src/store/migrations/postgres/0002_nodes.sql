-- Server processes. One whose lease has expired is gone, whatever it thinks of itself.
CREATE TABLE nodes (
    id uuid PRIMARY KEY,
    address text NOT NULL,          -- where the others reach its public listener: host:port
    expires_at timestamptz NOT NULL
);

-- Who plays a match. Whoever takes it over raises the epoch, and what the one before still writes
-- finds another epoch than its own.
ALTER TABLE matches ADD COLUMN node_id uuid;
ALTER TABLE matches ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
CREATE INDEX matches_by_node ON matches (node_id) WHERE node_id IS NOT NULL;

-- So that each node finds the new ones.
ALTER TABLE revocations ADD COLUMN revoked_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX revocations_by_time ON revocations (revoked_at);

-- A ticket is taken out on one node and shown on another.
CREATE TABLE socket_tickets (
    digest bytea PRIMARY KEY,
    user_id uuid NOT NULL,
    session_id uuid NOT NULL,
    token_expires_at bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX socket_tickets_by_session ON socket_tickets (session_id);
