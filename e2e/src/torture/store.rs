//! What the ledger is kept in, how that is taken away, and how its tables are read beside the controller.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::postgres::Postgres;
use crate::proxy::Wire;
use crate::small_disk::SmallDisk;
use crate::stack::Stack;
use crate::{ports, tools};

/// Room for everything, of `SQLite`'s file and log.
const DISK_MIB: u32 = 192;
const DATABASE: &str = "ledger";

/// Which kind of ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `SQLite` on a small disk.
    Sqlite,
    /// `PostgreSQL`, with a server of its own.
    Postgres,
}

impl Kind {
    /// Its name, as `LEDGER` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A ledger's place. It goes after the controller that uses it.
pub(super) enum Store {
    /// A file; the disk is ours to fill, where we may mount one.
    File(Option<SmallDisk>),
    /// A server, and the line to it.
    Database(Box<(Postgres, Wire)>),
}

impl Store {
    /// One for a stack whose controller has not been started.
    pub(super) fn prepare(kind: Kind, stack: &mut Stack) -> Result<Self> {
        if kind == Kind::Sqlite {
            let disk = SmallDisk::mount(&stack.directory().join("disk"), DISK_MIB)?;
            if let Some(disk) = &disk {
                std::os::unix::fs::symlink(disk.path().join("ledger.sqlite"), stack.ledger())?;
            }
            return Ok(Self::File(disk));
        }
        tools::postgresql()?;
        let server = Postgres::start(ports::free()?, &[])?;
        server.create_database(DATABASE)?;
        let line = Wire::to((Ipv4Addr::LOCALHOST, server.port()).into())?;
        let (direct, through) = (format!(":{}/", server.port()), format!(":{}/", line.address().port()));
        stack.keep_ledger(server.tcp_url(DATABASE).replace(&direct, &through));
        Ok(Self::Database(Box::new((server, line))))
    }

    /// What `certwave ledger` takes as `--ledger`.
    pub(super) fn url(&self, stack: &Stack) -> String {
        match self {
            Self::File(_) => stack.ledger().display().to_string(),
            Self::Database(database) => database.0.tcp_url(DATABASE),
        }
    }

    /// Whether it can be taken away.
    pub(super) const fn can_go(&self) -> bool {
        !matches!(self, Self::File(None))
    }

    /// It is gone: the disk is full, or the server was killed.
    pub(super) fn take_away(&mut self) -> Result<()> {
        match self {
            Self::File(disk) => disk.as_ref().map_or(Ok(()), SmallDisk::fill),
            Self::Database(database) => database.0.kill(),
        }
    }

    /// It is back.
    pub(super) fn give_back(&mut self) -> Result<()> {
        match self {
            Self::File(disk) => disk.as_ref().map_or(Ok(()), SmallDisk::free),
            Self::Database(database) => database.0.resume(),
        }
    }

    /// The line to the server, if there is one.
    pub(super) fn line(&self) -> Option<&Wire> {
        match self {
            Self::File(_) => None,
            Self::Database(database) => Some(&database.1),
        }
    }

    /// Which certificate of a device has which serial number: by SHA-256. A certificate never changes, so that the ledger can be asked.
    pub(super) fn serials(&self, stack: &Stack) -> Result<BTreeMap<String, String>> {
        let select = |hex: fn(&str) -> String, object: &str| {
            let sha256 = hex("fingerprint");
            format!(
                "SELECT {object}('sha256', {sha256}, 'serial', lower(serial)) FROM certificates WHERE kind = 'Device'"
            )
        };
        let pair = |row: Value| -> Option<(String, String)> {
            Some((row["sha256"].as_str()?.to_owned(), row["serial"].as_str()?.to_owned()))
        };
        Ok(self.query(stack, select)?.into_iter().filter_map(pair).collect())
    }

    /// All devices that an object declares.
    pub(super) fn devices(&self, stack: &Stack) -> Result<Vec<Value>> {
        let select = |hex: fn(&str) -> String, object: &str| {
            let (current, job) = (hex("c.fingerprint"), hex("j.id"));
            format!(
                "SELECT {object}('device', d.device, 'current', {current}, 'job', {job}, 'state', j.state,
                     'unshown', CASE WHEN d.project_rev > d.projected_rev THEN 1 ELSE 0 END)
                 FROM devices d LEFT JOIN certificates c ON c.id = d.current LEFT JOIN jobs j ON j.id = d.job
                 WHERE d.declared = 1"
            )
        };
        self.query(stack, select)
    }

    /// One JSON object for each row; `select` is told how this store writes bytes as hex, and an object.
    fn query(&self, stack: &Stack, select: impl Fn(fn(&str) -> String, &str) -> String) -> Result<Vec<Value>> {
        let lines: Vec<String> = match self {
            Self::File(_) => {
                let query = select(
                    |column| format!("CASE WHEN {column} IS NOT NULL THEN lower(hex({column})) END"),
                    "json_object",
                );
                let db = Connection::open_with_flags(stack.ledger(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                db.busy_timeout(Duration::from_secs(5))?;
                let mut get = db.prepare(&query)?;
                get.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
            }
            Self::Database(database) => {
                let query = select(|column| format!("encode({column}, 'hex')"), "json_build_object");
                database.0.sql(DATABASE, &query)?.lines().map(str::to_owned).collect()
            }
        };
        let row = |line: &String| serde_json::from_str(line).with_context(|| line.clone());
        lines.iter().map(row).collect()
    }
}
