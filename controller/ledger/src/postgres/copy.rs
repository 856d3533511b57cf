//! A whole ledger out of a database into a file, and from a file into a database: every table, in one transaction each way, row by
//! row, so that its size does not matter.

use std::path::Path;

use certwave_core::model::Millis;
use postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutIter};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::Type;
use postgres::{IsolationLevel, Transaction};
use rusqlite::Connection as File;

use super::{PostgresOptions, migrate};
use crate::sql::{Connection, Error, Session, Value};
use crate::sqlite::{blank, reader};
use crate::{LedgerError, Result};

/// Every table, those that others refer to first. (Jobs and devices refer to each other.)
const TABLES: [&str; 27] = [
    "epochs",
    "fleets",
    "certificates",
    "jobs",
    "devices",
    "used_permits",
    "claims",
    "claim_uses",
    "rotations",
    "buckets",
    "tallies",
    "members",
    "template_blocks",
    "crls",
    "audit",
    "ledger",
    "marks",
    "holds",
    "device_holds",
    "named_marks",
    "scopes",
    "crl_covers",
    "crl_floors",
    "door_loads",
    "retirements",
    "archived_certificates",
    "authorities",
];
/// A whole table takes longer than any statement of the controller may.
const PATIENT: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// Copies the database, as it stands at one instant, into a file that is there and empty. Blocks.
pub(crate) fn out(options: &PostgresOptions, to: &Path) -> Result<()> {
    let target = blank(to)?;
    let mut client = options.connect()?;
    client.batch_execute(PATIENT)?;
    let mut source = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    is_current(&mut source)?;
    target.execute_batch("BEGIN; DELETE FROM ledger")?;
    for table in TABLES {
        let columns = Columns::of(&target, table)?;
        let types = types(&mut source, table, &columns)?;
        let copy = format!("COPY {table} ({}) TO STDOUT (FORMAT binary)", columns.theirs);
        let mut rows = BinaryCopyOutIter::new(source.copy_out(&copy)?, &types);
        let mut put = target.prepare(&columns.insert(table))?;
        while let Some(row) = rows.next()? {
            for index in 0..columns.count {
                put.raw_bind_parameter(index + 1, row.try_get::<Value<'_>>(index)?)?;
            }
            put.raw_execute()?;
        }
    }
    target.execute_batch("COMMIT")?;
    target.close().map_err(|(_, error)| error.into())
}

/// Copies a file into a database that holds no ledger yet, and marks it as restored. Blocks.
pub(crate) fn into(from: &Path, options: &PostgresOptions, now: Millis) -> Result<()> {
    let source = reader(from)?;
    migrate::migrate(&Connection::Postgres(Box::new(Session::new(options.connect()?))))?;
    let mut client = options.connect()?;
    client.batch_execute(PATIENT)?;
    let mut target = client.transaction()?;
    // Who takes an epoch waits for this.
    target.batch_execute("SELECT one FROM fence FOR UPDATE")?;
    is_empty(&mut target)?;
    target.batch_execute("ALTER TABLE jobs DROP CONSTRAINT jobs_device_fkey; DELETE FROM ledger")?;
    for table in TABLES {
        let columns = Columns::of(&source, table)?;
        let types = types(&mut target, table, &columns)?;
        let copy = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.theirs);
        let mut put = BinaryCopyInWriter::new(target.copy_in(&copy)?, &types);
        let mut get = source.prepare(&format!("SELECT {} FROM {table}", columns.ours))?;
        let mut rows = get.query([])?;
        while let Some(row) = rows.next()? {
            let value = |index| Value::try_from(row.get_ref(index)?).map_err(|why| Error::column(index, why));
            let values = (0..columns.count).map(value).collect::<crate::sql::Result<Vec<_>>>()?;
            put.write_raw(values)?;
        }
        put.finish()?;
    }
    target.batch_execute("ALTER TABLE jobs ADD FOREIGN KEY (device) REFERENCES devices (id)")?;
    number_on(&mut target)?;
    // In the same transaction: nobody ever finds it unmarked.
    target.execute("UPDATE ledger SET restored_at = $1", &[&now])?;
    Ok(target.commit()?)
}

/// Refuses a schema of another version: the file has this one's.
fn is_current(source: &mut Transaction<'_>) -> Result<()> {
    let known = source.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[])?;
    if !known.try_get::<_, bool>(0)? {
        return Err(LedgerError::Unavailable("the database holds no ledger".to_owned()));
    }
    let version = source.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])?;
    migrate::is_current(version.try_get(0)?)
}

/// Refuses to write over a ledger.
fn is_empty(target: &mut Transaction<'_>) -> Result<()> {
    let used = "SELECT 1 WHERE EXISTS (SELECT 1 FROM epochs) OR EXISTS (SELECT 1 FROM devices) OR EXISTS (SELECT 1 FROM audit)";
    if target.query_opt(used, &[])?.is_none() {
        return Ok(());
    }
    Err(LedgerError::Unavailable(
        "the database holds a ledger already: restore into an empty one, and start the controller with its URL; the present one \
         stays as it is"
            .to_owned(),
    ))
}

/// A table's columns.
struct Columns {
    count: usize,
    /// Their names in the file, and in the same order in the database.
    ours: String,
    theirs: String,
}

impl Columns {
    fn of(file: &File, table: &str) -> Result<Self> {
        let mut get = file.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let names = get.query_map([table], |row| row.get::<_, String>(0))?;
        let names = names.collect::<rusqlite::Result<Vec<_>>>()?;
        let quoted = |names: Vec<&str>| names.join("\", \"");
        // A word of PostgreSQL's SQL.
        let theirs = names.iter().map(|name| if name == "only" { "one" } else { name });
        Ok(Self {
            count: names.len(),
            ours: format!("\"{}\"", quoted(names.iter().map(String::as_str).collect())),
            theirs: format!("\"{}\"", quoted(theirs.collect())),
        })
    }

    fn insert(&self, table: &str) -> String {
        let values = vec!["?"; self.count].join(", ");
        format!("INSERT INTO {table} ({}) VALUES ({values})", self.ours)
    }
}

fn types(database: &mut Transaction<'_>, table: &str, columns: &Columns) -> Result<Vec<Type>> {
    let statement = database.prepare(&format!("SELECT {} FROM {table}", columns.theirs))?;
    Ok(statement
        .columns()
        .iter()
        .map(|column| column.type_().clone())
        .collect())
}

/// What the database numbers by itself goes on after what was copied.
fn number_on(target: &mut Transaction<'_>) -> Result<()> {
    let numbered = "SELECT table_name::text FROM information_schema.columns
        WHERE table_schema = current_schema() AND is_identity = 'YES'";
    for row in target.query(numbered, &[])? {
        let table: &str = row.try_get(0)?;
        let next = format!(
            "SELECT setval(pg_get_serial_sequence('{table}', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) FROM {table}"
        );
        target.query_one(&next, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_table_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        std::fs::write(&path, []).unwrap();
        let file = blank(&path).unwrap();
        let mut get = file
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
            .unwrap();
        let mut found: Vec<String> = get
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(std::result::Result::unwrap)
            .collect();
        let mut known = TABLES.map(str::to_owned).to_vec();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }
}
