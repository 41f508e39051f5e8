-- Whose account went with the session, so that each node forgets who that was.
ALTER TABLE revocations ADD COLUMN deleted_user uuid;
