//! What brokers have loaded, and the sessions that they must end.

use std::collections::{BTreeMap, BTreeSet};

use crate::sql::{Connection, params};
use certwave_core::model::{Identity, Millis};
use certwave_protocol::ids::BrokerId;

use super::column::{Columns, int};
use super::{crl, revocation};
use crate::partition::FULL_PARTITION;
use crate::{DoorLoad, OpenSession, Result};

/// Nodes have loaded CRLs.
pub(super) fn loaded(db: &Connection, loads: &[DoorLoad], nodes: &[String]) -> Result<()> {
    let mut scopes: BTreeMap<(&BrokerId, &str), Millis> = BTreeMap::new();
    for load in loads {
        note(db, load)?;
        // What was said before counts again: the node that was waited for may be gone.
        let at = scopes.entry((&load.broker, &load.issuer)).or_insert(load.at);
        *at = load.at.max(*at);
    }
    for ((broker, issuer), at) in scopes {
        shut(db, broker, issuer, nodes, at)?;
    }
    Ok(())
}

/// Keeps a load, if it is newer than those before.
fn note(db: &Connection, l: &DoorLoad) -> Result<()> {
    let number = int(l.number)?;
    db.prepare_cached(
        "INSERT INTO door_loads (broker, node, issuer, partition, number, at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?5 > coalesce((SELECT max(number) FROM door_loads
             WHERE broker = ?1 AND node = ?2 AND issuer = ?3 AND partition = ?4), -1)",
    )?
    .execute(params![l.broker.as_str(), l.node, l.issuer, l.partition, number, l.at])?;
    db.prepare_cached(
        "DELETE FROM door_loads WHERE broker = ?1 AND node = ?2 AND issuer = ?3 AND partition = ?4
             AND number <= (SELECT number FROM door_loads WHERE broker = ?1 AND node = ?2 AND issuer = ?3 AND partition = ?4
                 ORDER BY number DESC LIMIT 1 OFFSET ?5)",
    )?
    .execute(params![l.broker.as_str(), l.node, l.issuer, l.partition, crl::HISTORY])?;
    Ok(())
}

/// The last change that a node goes by in a partition: by its CRL, or the one of all that the CA has issued.
fn reach(db: &Connection, broker: &BrokerId, node: &str, issuer: &str, partition: &str) -> Result<i64> {
    let mut get = db.prepare_cached(
        "SELECT coalesce(max(c.covers), -1) FROM crl_covers c WHERE c.issuer = ?3 AND c.partition IN (?4, ?5)
             AND c.number <= (SELECT max(l.number) FROM door_loads l
                 WHERE l.broker = ?1 AND l.node = ?2 AND l.issuer = ?3 AND l.partition = c.partition)",
    )?;
    Ok(get.query_row(
        params![broker.as_str(), node, issuer, partition, FULL_PARTITION],
        |row| row.get(0),
    )?)
}

/// Marks that every node has loaded.
fn shut(db: &Connection, broker: &BrokerId, issuer: &str, nodes: &[String], at: Millis) -> Result<()> {
    let mut waiting = db.prepare_cached(
        "SELECT DISTINCT partition FROM marks WHERE shut_at IS NULL AND broker IS NOT NULL AND broker = ?1 AND issuer = ?2",
    )?;
    let partitions: Vec<String> = waiting
        .query_map([broker.as_str(), issuer], |row| row.get(0))?
        .collect::<crate::sql::Result<_>>()?;
    for partition in partitions {
        let mut least = None;
        for node in nodes {
            let reach = reach(db, broker, node, issuer, &partition)?;
            least = Some(least.map_or(reach, |least: i64| least.min(reach)));
        }
        // A broker whose nodes nobody knows has loaded nothing.
        let Some(least) = least else { return Ok(()) };
        let mut update = db.prepare_cached(
            "UPDATE marks SET shut_at = ?5 WHERE shut_at IS NULL AND broker IS NOT NULL AND broker = ?1 AND issuer = ?2
                 AND partition = ?3 AND change <= ?4
             RETURNING broker, device",
        )?;
        let rows = update.query_map(params![broker.as_str(), issuer, partition, least, at], |row| {
            Columns::of(row).optional_identity()
        })?;
        crl::show(db, rows, at)?;
    }
    Ok(())
}

/// What each node of a broker has loaded.
pub(super) fn loads(db: &Connection, broker: &BrokerId) -> Result<Vec<DoorLoad>> {
    let mut get = db.prepare_cached(
        "SELECT node, issuer, partition, number, at FROM door_loads l WHERE broker = ?1
             AND number = (SELECT max(number) FROM door_loads m WHERE m.broker = l.broker AND m.node = l.node
                 AND m.issuer = l.issuer AND m.partition = l.partition)
         ORDER BY node, issuer, partition",
    )?;
    let rows = get.query_map([broker.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(DoorLoad {
            broker: broker.clone(),
            node: c.get()?,
            issuer: c.get()?,
            partition: c.get()?,
            number: c.unsigned()?,
            at: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// When each node had first loaded what covers a change.
pub(super) fn since(
    db: &Connection,
    broker: &BrokerId,
    issuer: &str,
    partition: &str,
    change: u64,
) -> Result<Vec<(String, Millis)>> {
    let mut get = db.prepare_cached(
        "SELECT l.node, min(l.at) FROM door_loads l
         JOIN (SELECT partition, min(number) AS number FROM crl_covers
             WHERE issuer = ?2 AND partition IN (?3, ?4) AND covers >= ?5 GROUP BY partition) c
             ON c.partition = l.partition AND l.number >= c.number
         WHERE l.broker = ?1 AND l.issuer = ?2 GROUP BY l.node ORDER BY l.node",
    )?;
    let rows = get.query_map(
        params![broker.as_str(), issuer, partition, FULL_PARTITION, int(change)?],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Devices whose sessions must be closed: those whose door is shut first, then the longest waiting.
pub(super) fn open_sessions(db: &Connection, broker: &BrokerId, limit: u32) -> Result<Vec<OpenSession>> {
    let mut get = db.prepare_cached(
        "SELECT broker, device, max(change), min(CASE WHEN shut_at IS NULL THEN 0 ELSE 1 END) AS shut FROM marks
         WHERE session = 1 AND closed_at IS NULL AND broker = ?1
         GROUP BY broker, device ORDER BY shut DESC, min(recorded_at) LIMIT ?2",
    )?;
    let rows = get.query_map(params![broker.as_str(), limit], |row| {
        let mut c = Columns::of(row);
        Ok(OpenSession {
            identity: c.identity()?,
            change: c.unsigned()?,
            shut: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Sessions were closed.
pub(super) fn closed(db: &Connection, now: Millis, closed: &[(Identity, u64)]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE marks SET closed_at = ?4 WHERE broker = ?1 AND device = ?2 AND change <= ?3
             AND session = 1 AND closed_at IS NULL",
    )?;
    let mut shown = BTreeSet::new();
    for (identity, change) in closed {
        let names = params![identity.broker.as_str(), identity.device.as_str(), int(*change)?, now];
        if update.execute(names)? > 0 {
            shown.insert(identity);
        }
    }
    for identity in shown {
        revocation::touch(db, identity, now)?;
    }
    Ok(())
}
