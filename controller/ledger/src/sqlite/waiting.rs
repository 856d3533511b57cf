//! Whose turn it is.

use rusqlite::{Connection, ToSql, params};

use super::column::to_json;
use super::member;
use crate::{Member, MemberQuery, Result};

/// Planned members that may start now.
pub(super) fn members(db: &Connection, uid: &str, q: &MemberQuery) -> Result<Vec<Member>> {
    let now_s = q.now.div_euclid(1000);
    let full = to_json(&q.full_groups)?;
    let find = |condition: &str, value: &dyn ToSql| {
        member::list(
            db,
            &format!(
                "m.outcome = 'Planned' AND m.wave <= ?2 AND m.grp NOT IN (SELECT value FROM json_each(?3))
                 AND d.declared = 1 AND d.job_open = 0 AND (d.not_before IS NULL OR d.not_before <= ?4)
                 AND d.not_after > ?5 AND {condition} ORDER BY m.wave, m.ordinal LIMIT ?7"
            ),
            params![uid, q.through_wave, full, q.now, now_s, value, q.limit],
        )
    };
    if q.windows == u64::MAX {
        return find("?6", &true);
    }
    let mut found = if q.windows == 0 {
        Vec::new()
    } else {
        find("m.windows & ?6 <> 0", &q.windows.cast_signed())?
    };
    if let Some(before) = q.override_before_s {
        found.extend(find("d.not_after < ?6", &before)?);
        found.sort_by(|a, b| (a.wave, a.ordinal, &a.identity).cmp(&(b.wave, b.ordinal, &b.identity)));
        found.dedup();
        found.truncate(q.limit as usize);
    }
    Ok(found)
}
