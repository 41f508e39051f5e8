//! Who wrote each match, as the database saw it: no word of the servers' own is taken for it.
//!
//! Triggers write down every change of a match's row and every event of its log with the epoch and
//! the node that the match had then, and with the connection's `application_name`, which the fleet
//! gives to each process.

use std::collections::BTreeMap;

use crate::check::Write;

const TRIGGERS: &str = "
    CREATE TABLE chaos_writes (
        number bigserial PRIMARY KEY,
        match_id uuid NOT NULL,
        seq bigint,
        epoch bigint NOT NULL,
        node_id uuid,
        writer text NOT NULL
    );
    CREATE FUNCTION chaos_match() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_writes (match_id, epoch, node_id, writer)
        VALUES (NEW.id, NEW.epoch, NEW.node_id, current_setting('application_name'));
        RETURN NULL;
    END $$;
    CREATE FUNCTION chaos_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_writes (match_id, seq, epoch, node_id, writer)
        SELECT id, NEW.seq, epoch, node_id, current_setting('application_name')
        FROM matches WHERE id = NEW.match_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER chaos_match AFTER INSERT OR UPDATE ON matches
        FOR EACH ROW EXECUTE FUNCTION chaos_match();
    CREATE TRIGGER chaos_event AFTER INSERT OR UPDATE ON match_events
        FOR EACH ROW EXECUTE FUNCTION chaos_event();";

/// Begins to write down, in a database that nodes have set up.
pub fn install(client: &mut postgres::Client) {
    client.batch_execute(TRIGGERS).unwrap();
}

/// All writes of each match, in the order in which they came.
pub fn writes(client: &mut postgres::Client) -> BTreeMap<String, Vec<Write>> {
    let sql = "SELECT match_id::text, seq, epoch, coalesce(node_id::text, ''), writer
        FROM chaos_writes ORDER BY number";
    let mut writes: BTreeMap<String, Vec<Write>> = BTreeMap::new();
    for row in client.query(sql, &[]).unwrap() {
        let write = Write {
            seq: row.get::<_, Option<i64>>(1).map(i64::cast_unsigned),
            epoch: row.get::<_, i64>(2).cast_unsigned(),
            node: row.get(3),
            writer: row.get(4),
        };
        writes.entry(row.get(0)).or_default().push(write);
    }
    writes
}
