//! A PostgreSQL server as source and target, by the blocking client: no runtime runs yet.

use std::error::Error;

use bytes::BytesMut;
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Row};
use uuid::Uuid;

use super::tables::{Kind, SECRETS, TABLES, Table, Value};
use super::{Feed, KEY_SECRET, Put, Source, Target, TransferError};
use crate::store::StoreError;
use crate::store::postgres::{Migrate, PostgresUrl, connect, migrate};

/// A connection in a transaction, which ends undone unless it is committed.
pub(super) struct Server {
    client: Client,
}

impl Server {
    /// One moment of a database; servers may go on working on it.
    pub(super) fn read(url: &PostgresUrl) -> Result<Self, TransferError> {
        migrate(url, Migrate::Check)?;
        let mut client = connect(url)?;
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .map_err(StoreError::from)?;
        Ok(Self { client })
    }

    /// A database to be filled, its schema brought up to date; nobody else writes meanwhile.
    pub(super) fn fill(url: &PostgresUrl) -> Result<Self, TransferError> {
        migrate(url, Migrate::Apply)?;
        let mut client = connect(url)?;
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let begin = format!("BEGIN; LOCK TABLE {} IN EXCLUSIVE MODE", names.join(", "));
        client.batch_execute(&begin).map_err(StoreError::from)?;
        Ok(Self { client })
    }
}

impl Source for Server {
    fn rows(&mut self, table: &Table, put: Put<'_>) -> Result<(), TransferError> {
        // What nodes know each other by is of no use elsewhere.
        let key_alone = format!("WHERE name = '{KEY_SECRET}'");
        let condition = if table.name == SECRETS.name { key_alone.as_str() } else { "" };
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        let mut rows = self
            .client
            .query_typed_raw(&table.select(condition), none)
            .map_err(StoreError::from)?;
        let mut values = Vec::with_capacity(table.columns.len());
        while let Some(row) = rows.next().map_err(StoreError::from)? {
            values.clear();
            for (place, (_, kind)) in table.columns.iter().enumerate() {
                values.push(value(&row, place, *kind).map_err(StoreError::from)?);
            }
            put(&values)?;
        }
        Ok(())
    }
}

impl Target for Server {
    fn takes(&self, _: &Table) -> bool {
        true
    }

    fn load(&mut self, table: &Table, feed: Feed<'_>) -> Result<(), TransferError> {
        let sql = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", table.name, table.names());
        let types: Vec<Type> = table.columns.iter().map(|(_, kind)| column_type(*kind)).collect();
        let writer = self.client.copy_in(&sql).map_err(StoreError::from)?;
        let mut writer = BinaryCopyInWriter::new(writer, &types);
        feed(&mut |row| Ok(writer.write_raw(row).map_err(StoreError::from)?))?;
        writer.finish().map_err(StoreError::from)?;
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), TransferError> {
        Ok(self.client.batch_execute("COMMIT").map_err(StoreError::from)?)
    }
}

fn column_type(kind: Kind) -> Type {
    match kind {
        Kind::Uuid => Type::UUID,
        Kind::Text => Type::TEXT,
        Kind::Integer => Type::INT8,
        Kind::Small => Type::INT2,
        Kind::Boolean => Type::BOOL,
        Kind::Bytes => Type::BYTEA,
        Kind::Float => Type::FLOAT8,
    }
}

fn value(row: &Row, place: usize, kind: Kind) -> Result<Value, postgres::Error> {
    let value = match kind {
        Kind::Uuid => {
            row.try_get::<_, Option<Uuid>>(place)?.map(|uuid| Value::Uuid(uuid.into_bytes()))
        }
        Kind::Text => row.try_get::<_, Option<String>>(place)?.map(Value::Text),
        Kind::Integer => row.try_get::<_, Option<i64>>(place)?.map(Value::Integer),
        Kind::Small => {
            row.try_get::<_, Option<i16>>(place)?.map(|number| Value::Integer(number.into()))
        }
        Kind::Boolean => row.try_get::<_, Option<bool>>(place)?.map(Value::Boolean),
        Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(place)?.map(Value::Bytes),
        Kind::Float => row.try_get::<_, Option<f64>>(place)?.map(Value::Float),
    };
    Ok(value.unwrap_or(Value::Null))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        column: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Uuid(bytes) => Uuid::from_bytes(*bytes).to_sql(column, out),
            Self::Text(text) => text.to_sql(column, out),
            Self::Integer(number) if *column == Type::INT2 => {
                i16::try_from(*number)?.to_sql(column, out)
            }
            Self::Integer(number) => number.to_sql(column, out),
            Self::Boolean(truth) => truth.to_sql(column, out),
            Self::Bytes(bytes) => bytes.to_sql(column, out),
            Self::Float(number) => number.to_sql(column, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
