//! Certificates that ended long ago.

use crate::sql::{Connection, params};

use super::column::{count, to_json};
use crate::{LedgerError, Result};

/// Moves certificates that ended before a time into the archive, with their marks; answers how many.
pub(super) fn archive(db: &Connection, ended_before_s: i64, limit: u32) -> Result<u32> {
    // They have ended and nobody refers to them any more.
    let mut find = db.prepare_cached(
        "SELECT c.id FROM certificates c INDEXED BY certificates_end
         WHERE c.not_after < ?1 AND c.kind <> 'Authority'
             AND NOT EXISTS (SELECT 1 FROM devices d LEFT JOIN jobs j ON j.id = d.job
                 WHERE d.broker = c.broker AND d.device = c.device
                     AND (c.id IN (d.current, d.previous, d.pending) OR j.subject = c.fingerprint))
             AND NOT EXISTS (SELECT 1 FROM claims k WHERE k.spki = c.spki OR k.certificate = c.id)
             AND NOT EXISTS (SELECT 1 FROM retirements r WHERE r.broker = c.broker AND r.device = c.device
                 AND r.phase NOT IN ('Revoked', 'Released') AND c.fingerprint IN (r.old, r.new))
         ORDER BY c.not_after LIMIT ?2",
    )?;
    let found = find
        .query_map(params![ended_before_s, limit], |row| row.get(0))?
        .collect::<crate::sql::Result<Vec<i64>>>()?;
    let ended = to_json(&found)?;
    let moved = db
        .prepare_cached(
            "INSERT INTO archived_certificates (fingerprint, issuer, serial, spki, public_key, not_before, not_after, kind,
                 holder, broker, device, job, issued_at, sent_at, confirmed_at, der, held_at, revoked_at, reason,
                 invalid_since)
             SELECT c.fingerprint, c.issuer, c.serial, c.spki, c.public_key, c.not_before, c.not_after, c.kind, c.holder,
                 c.broker, c.device, c.job, c.issued_at, c.sent_at, c.confirmed_at, c.der, m.held_at, m.revoked_at, m.reason,
                 m.invalid_since
             FROM certificates c LEFT JOIN marks m ON m.issuer = c.issuer AND m.serial = c.serial
             WHERE c.id IN (SELECT CAST(value AS BIGINT) FROM json_each(?1))",
        )?
        .execute([&ended])?;
    if moved != found.len() {
        return Err(LedgerError::Corrupt(
            "not all certificates could be archived".to_owned(),
        ));
    }
    for table in ["holds", "marks"] {
        db.prepare_cached(&format!(
            "DELETE FROM {table} WHERE (issuer, serial) IN (SELECT issuer, serial FROM certificates
                 WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?1)))"
        ))?
        .execute([&ended])?;
    }
    db.prepare_cached("DELETE FROM certificates WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?1))")?
        .execute([&ended])?;
    count(moved)
}
