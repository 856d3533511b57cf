//! Epochs: who may write, and about what.

use certwave_core::model::{Identity, Millis};
use certwave_protocol::ids::{BrokerId, Epoch};

use super::column::{Columns, int};
use crate::sql::{Connection, OptionalExtension as _, params};
use crate::{LedgerError, Part, Result};

/// The controller's part, in the table. No broker's id is empty.
const CONTROLLER: &str = "";
/// All parts: a later epoch of this one ends every other. No broker's id has such a sign.
const ALL: &str = "*";

/// A term that is the present one of its part.
pub(super) struct Term {
    /// The only broker that it may write about; `None`: all.
    broker: Option<String>,
}

impl Term {
    /// The term of an epoch, if that is the present one of its part.
    pub(super) fn of(db: &Connection, epoch: Epoch) -> Result<Self> {
        let mut get = db.prepare_cached(
            "SELECT e.part, (SELECT max(p.epoch) FROM epochs p WHERE p.part = e.part),
                 (SELECT coalesce(max(a.epoch), 0) FROM epochs a WHERE a.part = '*')
             FROM epochs e WHERE e.epoch = ?1",
        )?;
        // No epoch is larger than what the table holds.
        let given = i64::try_from(epoch).unwrap_or(i64::MAX);
        let found = get.query_row([given], |row| {
            let mut c = Columns::of(row);
            Ok((c.get::<String>()?, c.unsigned()?, c.unsigned()?))
        });
        let Some((part, own, all)) = found.optional()? else {
            let present = last(db)?;
            return Err(LedgerError::StaleEpoch { given: epoch, present });
        };
        let present: Epoch = own.max(all);
        if present != epoch {
            return Err(LedgerError::StaleEpoch { given: epoch, present });
        }
        let every = part == CONTROLLER || part == ALL;
        Ok(Self {
            broker: (!every).then_some(part),
        })
    }

    /// The only broker that it may write about, if it is one's.
    pub(super) fn broker(&self) -> Option<&str> {
        self.broker.as_deref()
    }

    /// Refuses what is about another broker.
    pub(super) fn about(&self, broker: &BrokerId) -> Result<()> {
        match &self.broker {
            Some(own) if own != broker.as_str() => Err(LedgerError::Invalid(format!(
                "whoever holds the broker {own} writes about the broker {broker}"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses what is about another broker's devices.
    pub(super) fn devices<'a>(&self, identities: impl IntoIterator<Item = &'a Identity>) -> Result<()> {
        let mut identities = identities.into_iter();
        identities.try_for_each(|identity| self.about(&identity.broker))
    }

    /// Refuses what is about a Rotation of another broker's devices. A fleet keeps its broker, so one member tells for all.
    pub(super) fn rotation(&self, db: &Connection, uid: &str) -> Result<()> {
        let Some(own) = &self.broker else { return Ok(()) };
        let mut find = db.prepare_cached(
            "SELECT d.broker FROM devices d WHERE d.id =
                 (SELECT m.device FROM rotations r JOIN members m ON m.rotation = r.id WHERE r.uid = ?1 LIMIT 1)",
        )?;
        let other: Option<String> = find.query_row([uid], |row| row.get(0)).optional()?;
        match other.filter(|other| other != own) {
            None => Ok(()),
            Some(other) => Err(LedgerError::Invalid(format!(
                "whoever holds the broker {own} writes about a Rotation of devices of the broker {other}"
            ))),
        }
    }
}

/// The last epoch of all, 0 before the first.
pub(super) fn last(db: &Connection) -> Result<Epoch> {
    let mut get = db.prepare_cached("SELECT coalesce(max(epoch), 0) FROM epochs")?;
    Ok(get.query_row([], |row| Columns::of(row).unsigned())?)
}

/// Whether an epoch is the present one of its part.
pub(super) fn is_present(db: &Connection, epoch: Epoch) -> Result<bool> {
    match Term::of(db, epoch) {
        Ok(_) => Ok(true),
        Err(LedgerError::StaleEpoch { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Begins the next one of a part.
pub(super) fn take(db: &Connection, part: &Part, holder: &str, now: Millis) -> Result<Epoch> {
    let part = match part {
        Part::Controller => CONTROLLER,
        Part::Broker(id) => id.as_str(),
    };
    next(db, part, holder, now)
}

/// Ends everybody's.
pub(super) fn end_all(db: &Connection, holder: &str, now: Millis) -> Result<()> {
    next(db, ALL, holder, now).map(drop)
}

fn next(db: &Connection, part: &str, holder: &str, now: Millis) -> Result<Epoch> {
    let next = (last(db)? + 1).max(u64::try_from(now).unwrap_or(0));
    db.prepare_cached("INSERT INTO epochs (epoch, holder, taken_at, part) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![int(next)?, holder, now, part])?;
    Ok(next)
}
