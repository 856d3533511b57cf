//! How certificates stand, for OCSP, for `Revocation` objects, and who would be met by one.

use crate::sql::{Connection, OptionalExtension as _, Row, ToSql, params};
use certwave_core::model::Identity;
use certwave_protocol::ids::BrokerId;

use super::column::{Columns, int};
use super::{declare, mark, query};
use crate::{Change, DeviceRow, FleetKey, InUse, Match, Result, RevocationProgress, SerialKey, SerialStatus};

/// The standing of certificates of one CA.
pub(super) fn of_serials(db: &Connection, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>> {
    let queries = [
        "SELECT c.not_after, m.held_at, m.revoked_at, m.reason FROM certificates c
             LEFT JOIN marks m ON m.issuer = c.issuer AND m.serial = c.serial WHERE c.issuer = ?1 AND c.serial = ?2",
        // Known by its serial number only.
        "SELECT not_after, held_at, revoked_at, reason FROM marks WHERE issuer = ?1 AND serial = ?2",
        "SELECT not_after, held_at, revoked_at, reason FROM archived_certificates WHERE issuer = ?1 AND serial = ?2",
    ];
    let status = |row: &Row<'_>| {
        let mut c = Columns::of(row);
        Ok(SerialStatus {
            not_after: c.get()?,
            standing: mark::standing(&mut c)?,
        })
    };
    serials
        .iter()
        .map(|serial| {
            for query in queries {
                let found = db
                    .prepare_cached(query)?
                    .query_row([issuer, serial], status)
                    .optional()?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        })
        .collect()
}

/// Changes after one, in order. Of a certificate that has changed again only the last one is left.
pub(super) fn changes(db: &Connection, after: u64, limit: u32) -> Result<Vec<Change>> {
    let mut get =
        db.prepare_cached("SELECT change, issuer, serial FROM marks WHERE change > ?1 ORDER BY change LIMIT ?2")?;
    let rows = get.query_map(params![int(after)?, limit], |row| {
        let mut c = Columns::of(row);
        Ok(Change {
            change: c.unsigned()?,
            key: SerialKey {
                issuer: c.get()?,
                serial: c.get()?,
            },
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// What devices start from, by device row.
pub(super) fn in_use(db: &Connection, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>> {
    let mut get = db.prepare_cached(
        "SELECT d.id, d.last_seen, c.issuer, c.serial FROM devices d LEFT JOIN certificates c ON c.id = d.current
         WHERE d.id > ?1 ORDER BY d.id LIMIT ?2",
    )?;
    let rows = get.query_map(params![after.map_or(i64::MIN, |row| row.0), limit], |row| {
        let mut c = Columns::of(row);
        let (device, last_seen) = (DeviceRow(c.get()?), c.get()?);
        let (issuer, serial) = (c.get::<Option<String>>()?, c.get::<Option<String>>()?);
        Ok(InUse {
            device,
            last_seen,
            certificate: issuer.zip(serial).map(|(issuer, serial)| SerialKey { issuer, serial }),
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// How far what was done in the name of a `Revocation` object is, at each broker. What is archived is as far as it gets, and at
/// none any more.
pub(super) fn progress(db: &Connection, uid: &str) -> Result<Vec<(Option<BrokerId>, RevocationProgress)>> {
    let mut get = db.prepare_cached(
        "SELECT m.broker, count(*), count(*) FILTER (WHERE m.issuer IS NULL OR m.crl_number IS NOT NULL),
             count(*) FILTER (WHERE m.issuer IS NULL OR m.shut_at IS NOT NULL),
             count(*) FILTER (WHERE m.issuer IS NULL OR m.closed_at IS NOT NULL)
         FROM named_marks n LEFT JOIN marks m ON m.issuer = n.issuer AND m.serial = n.serial
         WHERE n.revocation = ?1 AND (m.issuer IS NULL OR m.held_at IS NOT NULL OR m.revoked_at IS NOT NULL)
         GROUP BY m.broker ORDER BY m.broker",
    )?;
    let rows = get.query_map([uid], |row| {
        let mut c = Columns::of(row);
        let broker = c.optional_text()?;
        let progress = RevocationProgress {
            recorded: c.get()?,
            in_crl: c.get()?,
            shut: c.get()?,
            closed: c.get()?,
        };
        Ok((broker, progress))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// The `Revocation` objects (uids) that keep certificates, or devices without any, on hold.
pub(super) fn holding_revocations(db: &Connection) -> Result<Vec<String>> {
    // All that begin with "revocation ".
    let mut get = db.prepare_cached(
        "SELECT substr(holder, 12) FROM holds WHERE holder > 'revocation ' AND holder < 'revocation!'
         UNION SELECT substr(holder, 12) FROM device_holds WHERE holder > 'revocation ' AND holder < 'revocation!'",
    )?;
    let rows = get.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Devices that a `Revocation` object keeps on hold.
pub(super) fn held_by(db: &Connection, uid: &str, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        "SELECT m.broker, m.device FROM holds h JOIN marks m ON m.issuer = h.issuer AND m.serial = h.serial
             WHERE h.holder = 'revocation ' || ?1 AND m.broker IS NOT NULL
         UNION SELECT d.broker, d.device FROM device_holds h JOIN devices d ON d.id = h.device
             WHERE h.holder = 'revocation ' || ?1
         LIMIT ?2",
        params![uid, limit],
    )
}

fn matches(db: &Connection, condition: &str, values: &[&dyn ToSql]) -> Result<Vec<(DeviceRow, Match)>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT d.id, d.broker, d.device, d.namespace, d.name, d.labels, count(*)
         FROM devices d CROSS JOIN certificates c ON c.broker = d.broker AND c.device = d.device AND c.kind = 'Device'
         WHERE d.id > ?1 AND c.not_after > ?2 AND {condition}
             AND NOT EXISTS (SELECT 1 FROM marks m
                 WHERE m.issuer = c.issuer AND m.serial = c.serial AND m.revoked_at IS NOT NULL)
         GROUP BY d.id ORDER BY d.id LIMIT ?3"
    ))?;
    let rows = get.query_map(values, |row| {
        let mut c = Columns::of(row);
        Ok((
            DeviceRow(c.get()?),
            Match {
                identity: c.identity()?,
                object: c.object()?,
                labels: c.json()?,
                certificates: c.get()?,
            },
        ))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

fn beginning(after: Option<DeviceRow>) -> i64 {
    after.map_or(i64::MIN, |row| row.0)
}

/// Devices with certificates of a CA.
pub(super) fn issued_by(
    db: &Connection,
    issuer: &str,
    now_s: i64,
    after: Option<DeviceRow>,
    limit: u32,
) -> Result<Vec<(DeviceRow, Match)>> {
    matches(db, "c.issuer = ?4", params![beginning(after), now_s, limit, issuer])
}

/// Declared devices of a namespace, or of a fleet in it.
pub(super) fn revocable(
    db: &Connection,
    namespace: &str,
    fleet: Option<&str>,
    now_s: i64,
    after: Option<DeviceRow>,
    limit: u32,
) -> Result<Vec<(DeviceRow, Match)>> {
    let beginning = beginning(after);
    let Some(name) = fleet else {
        return matches(
            db,
            "d.declared = 1 AND d.namespace = ?4",
            params![beginning, now_s, limit, namespace],
        );
    };
    let key = FleetKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    match declare::known_fleet(db, &key)? {
        None => Ok(Vec::new()),
        Some(fleet) => matches(
            db,
            "d.declared = 1 AND d.fleet = ?4",
            params![beginning, now_s, limit, fleet],
        ),
    }
}
