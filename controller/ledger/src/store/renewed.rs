//! Members that another Rotation has rotated meanwhile, and that need no turn any more.

use certwave_core::model::Millis;
use certwave_protocol::ids::Epoch;

use super::SqlLedger;
use super::column::{count, to_json};
use crate::Result;
use crate::sql::{Connection, params};

/// Skipped in one transaction, for which all other writes wait.
const CHUNK: usize = 1000;
/// Planned members whose certificate was issued after the one with which they came. Which is the newer one is told by their order, as clocks
/// go wrong and are put right.
const RENEWED: &str =
    "m.rotation = (SELECT id FROM rotations WHERE uid = ?1 AND issuer IS NULL) AND m.outcome = 'Planned'
    AND EXISTS (SELECT 1 FROM devices d WHERE d.id = m.device AND d.job_open = 0 AND d.current > m.held)";

/// Finds them by a read, as that may go past a whole fleet, and skips those that still need no turn. Answers how many.
pub(super) async fn skip<D>(ledger: &SqlLedger<D>, epoch: Epoch, uid: &str, now: Millis) -> Result<u32> {
    let found = ledger.survey_of(uid, find).await?;
    let mut skipped = 0;
    // Once for nobody, too: whoever was deposed is told.
    for chunk in found.chunks(CHUNK).chain(found.is_empty().then_some(&found[..])) {
        let (uid, devices) = (uid.to_owned(), to_json(&chunk)?);
        skipped += ledger
            .fenced(epoch, move |db, term| {
                term.rotation(db, &uid)?;
                skip_these(db, &uid, &devices, now)
            })
            .await?;
    }
    Ok(skipped)
}

fn find(db: &Connection, uid: &str) -> Result<Vec<i64>> {
    let mut get = db.prepare_cached(&format!("SELECT m.device FROM members m WHERE {RENEWED}"))?;
    let rows = get.query_map([uid], |row| row.get(0))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

fn skip_these(db: &Connection, uid: &str, devices: &str, now: Millis) -> Result<u32> {
    let mut skip = db.prepare_cached(&format!(
        "UPDATE members AS m SET outcome = 'Skipped', changed = ?2
         WHERE m.device IN (SELECT CAST(value AS BIGINT) FROM json_each(?3)) AND {RENEWED}"
    ))?;
    count(skip.execute(params![uid, now, devices])?)
}
