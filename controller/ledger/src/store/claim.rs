//! Claims.

use crate::sql::{Connection, OptionalExtension as _, Row, params};
use certwave_protocol::ids::{BrokerId, ClaimName};

use super::column::Columns;
use super::{certificate, declare};
use crate::{Claim, ClaimRecord, ClaimUse, FleetKey, LedgerError, Result};

const SELECT: &str = "SELECT k.broker, f.namespace, f.name, k.name, k.device, k.quota, k.not_after, k.suspended,
    c.fingerprint, k.public_key, k.spki, k.used, k.last_used
    FROM claims k JOIN fleets f ON f.id = k.fleet LEFT JOIN certificates c ON c.id = k.certificate";

fn stored(row: &Row<'_>) -> crate::sql::Result<Claim> {
    let mut c = Columns::of(row);
    Ok(Claim {
        record: ClaimRecord {
            broker: c.text()?,
            fleet: c.fleet()?,
            name: c.text()?,
            device: c.optional_text()?,
            quota: c.get()?,
            not_after: c.get()?,
            suspended: c.get()?,
            certificate: c.optional_fingerprint()?,
            public_key: c.get()?,
            spki: c.fingerprint()?,
        },
        used: c.get()?,
        last_used: c.get()?,
    })
}

/// One claim.
pub(super) fn get(db: &Connection, broker: &BrokerId, name: &ClaimName) -> Result<Option<Claim>> {
    let mut get = db.prepare_cached(&format!("{SELECT} WHERE k.broker = ?1 AND k.name = ?2"))?;
    Ok(get.query_row([broker.as_str(), name.as_str()], stored).optional()?)
}

/// A Fleet's claims.
pub(super) fn of_fleet(db: &Connection, fleet: &FleetKey) -> Result<Vec<Claim>> {
    let mut get = db.prepare_cached(&format!(
        "{SELECT} WHERE f.namespace = ?1 AND f.name = ?2 ORDER BY k.name"
    ))?;
    let rows = get.query_map([&fleet.namespace, &fleet.name], stored)?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Takes a claim over as declared.
pub(super) fn upsert(db: &Connection, r: &ClaimRecord) -> Result<()> {
    if let Some(present) = get(db, &r.broker, &r.name)?
        && present.record.fleet != r.fleet
    {
        let FleetKey { namespace, name } = present.record.fleet;
        return Err(LedgerError::Duplicate {
            holder: certwave_core::model::ObjectRef { namespace, name },
        });
    }
    let reused = db
        .prepare_cached(
            "SELECT 1 FROM claims WHERE spki = ?1 AND NOT (broker = ?2 AND name = ?3)
             UNION ALL SELECT 1 FROM certificates WHERE spki = ?1 AND kind <> 'Claim'
             UNION ALL SELECT 1 FROM archived_certificates WHERE spki = ?1 AND kind <> 'Claim'",
        )?
        .exists(params![r.spki.0, r.broker.as_str(), r.name.as_str()])?;
    if reused {
        return Err(LedgerError::KeyReused);
    }
    let certificate = match &r.certificate {
        Some(f) => Some(certificate::id(db, f)?.ok_or(LedgerError::NotFound("such certificate of a claim"))?),
        None => None,
    };
    db.prepare_cached(
        "INSERT INTO claims (broker, name, fleet, device, quota, not_after, suspended, certificate, public_key, spki, used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)
         ON CONFLICT (broker, name) DO UPDATE SET device = excluded.device, quota = excluded.quota,
             not_after = excluded.not_after, suspended = excluded.suspended, certificate = excluded.certificate,
             public_key = excluded.public_key, spki = excluded.spki",
    )?
    .execute(params![
        r.broker.as_str(),
        r.name.as_str(),
        declare::fleet_id(db, &r.fleet)?,
        r.device.as_ref().map(AsRef::<str>::as_ref),
        r.quota,
        r.not_after,
        r.suspended,
        certificate,
        r.public_key,
        r.spki.0
    ])?;
    Ok(())
}

/// Counts a use, if the claim allows it.
pub(super) fn count_use(db: &Connection, u: &ClaimUse) -> Result<()> {
    let claim = get(db, &u.broker, &u.claim)?.ok_or(LedgerError::NotFound("such claim"))?;
    let r = &claim.record;
    if r.suspended || r.not_after <= u.at || r.device.as_ref().is_some_and(|d| *d != u.device) {
        return Err(LedgerError::ClaimClosed);
    }
    let names = params![u.broker.as_str(), u.claim.as_str(), u.device.as_str()];
    let again = db
        .prepare_cached(
            "SELECT 1 FROM claim_uses u JOIN claims k ON k.id = u.claim
             WHERE k.broker = ?1 AND k.name = ?2 AND u.device = ?3",
        )?
        .exists(names)?;
    if !again && r.quota.is_some_and(|quota| claim.used >= quota) {
        return Err(LedgerError::ClaimExhausted);
    }
    db.prepare_cached("UPDATE claims SET used = used + ?3, last_used = ?4 WHERE broker = ?1 AND name = ?2")?
        .execute(params![u.broker.as_str(), u.claim.as_str(), !again, u.at])?;
    db.prepare_cached(
        "INSERT INTO claim_uses (claim, device, job, at)
         SELECT id, ?3, ?4, ?5 FROM claims WHERE broker = ?1 AND name = ?2",
    )?
    .execute(params![
        u.broker.as_str(),
        u.claim.as_str(),
        u.device.as_str(),
        u.job.as_bytes(),
        u.at
    ])?;
    Ok(())
}

/// The latest uses.
pub(super) fn uses(db: &Connection, broker: &BrokerId, name: &ClaimName, limit: u32) -> Result<Vec<ClaimUse>> {
    let mut get = db.prepare_cached(
        "SELECT u.device, u.job, u.at FROM claim_uses u
         WHERE u.claim = (SELECT id FROM claims WHERE broker = ?1 AND name = ?2) ORDER BY u.id DESC LIMIT ?3",
    )?;
    let rows = get.query_map(params![broker.as_str(), name.as_str(), limit], |row| {
        let mut c = Columns::of(row);
        Ok(ClaimUse {
            broker: broker.clone(),
            claim: name.clone(),
            device: c.text()?,
            job: c.job_id()?,
            at: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}
