//! What the ledger remembers of a Rotation: limits are checked against this, not against what the controller says of itself.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;

use crate::faults::history::History;

/// A device's place in a Rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) device: String,
    /// From 0.
    pub(crate) wave: usize,
    /// As the ledger calls it.
    pub(crate) outcome: String,
}

/// When a wave was under way, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first job was sent.
    pub(crate) first_sent: i64,
    /// The last job was confirmed.
    pub(crate) last_confirmed: i64,
}

/// Who did what to a Rotation, by the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deed {
    pub(crate) who: String,
    pub(crate) what: String,
    pub(crate) detail: String,
}

impl History {
    /// The members of a Rotation, in the plan's order.
    pub(crate) fn members(&self, rotation: &str) -> Vec<Member> {
        let mut get = self
            .0
            .prepare(
                "SELECT d.device, m.wave, m.outcome FROM members m JOIN devices d ON d.id = m.device
                 JOIN rotations r ON r.id = m.rotation WHERE r.name = ?1 ORDER BY m.wave, m.ordinal",
            )
            .unwrap();
        let rows = get.query_map([rotation], |row| {
            let wave: i64 = row.get(1)?;
            Ok(Member {
                device: row.get(0)?,
                wave: usize::try_from(wave).unwrap(),
                outcome: row.get(2)?,
            })
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The devices of one wave (from 0), in the plan's order.
    pub(crate) fn wave(&self, rotation: &str, wave: usize) -> Vec<String> {
        let members = self.members(rotation).into_iter();
        members.filter(|m| m.wave == wave).map(|m| m.device).collect()
    }

    /// How many members have this outcome.
    pub(crate) fn outcomes(&self, rotation: &str, outcome: &str) -> usize {
        self.members(rotation).iter().filter(|m| m.outcome == outcome).count()
    }

    /// When each wave was under way; `None` for one of which nothing was sent and confirmed.
    pub(crate) fn spans(&self, rotation: &str) -> Vec<Option<Span>> {
        let waves = self.members(rotation).iter().map(|m| m.wave + 1).max().unwrap_or(0);
        let mut get = self
            .0
            .prepare(
                "SELECT min(CASE WHEN a.what = 'job-sent' THEN a.at END), max(CASE WHEN a.what = 'job-confirmed' THEN a.at END)
                 FROM audit a JOIN jobs j ON j.id = a.job JOIN rotations r ON r.uid = j.rotation
                 JOIN members m ON m.rotation = r.id AND m.device = j.device WHERE r.name = ?1 AND m.wave = ?2",
            )
            .unwrap();
        let mut span = |wave: usize| {
            let found: (Option<i64>, Option<i64>) = get
                .query_row(params![rotation, i64::try_from(wave).unwrap()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            let (first_sent, last_confirmed) = (found.0?, found.1?);
            Some(Span {
                first_sent,
                last_confirmed,
            })
        };
        (0..waves).map(&mut span).collect()
    }

    /// What was done to Rotations, in order.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        let mut get = self
            .0
            .prepare("SELECT who, what, coalesce(detail, '') FROM audit WHERE what LIKE 'rotation-%' OR what LIKE 'wave-%' ORDER BY id")
            .unwrap();
        let rows = get.query_map([], |row| {
            Ok(Deed {
                who: row.get(0)?,
                what: row.get(1)?,
                detail: row.get(2)?,
            })
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The most devices of each group that held a slot at the same time, enrolments left out.
    pub(crate) fn peaks(&self, group: impl Fn(&str) -> String) -> BTreeMap<String, usize> {
        let mut get = self
            .0
            .prepare(
                "SELECT a.what, a.job, d.device FROM audit a JOIN jobs j ON j.id = a.job JOIN devices d ON d.id = j.device
                 WHERE a.what LIKE 'job-%' AND j.kind <> 'enrol' ORDER BY a.id",
            )
            .unwrap();
        let mut lines = get.query([]).unwrap();
        let mut holding: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut peaks = BTreeMap::new();
        while let Some(line) = lines.next().unwrap() {
            let (what, job, device): (String, Vec<u8>, String) =
                (line.get(0).unwrap(), line.get(1).unwrap(), line.get(2).unwrap());
            let group = group(&device);
            let held = holding.entry(group.clone()).or_default();
            match what.as_str() {
                "job-sent" | "job-accepted" | "job-issued" | "job-committing" => held.insert(job),
                _ => held.remove(&job),
            };
            let peak = peaks.entry(group).or_default();
            *peak = held.len().max(*peak);
        }
        peaks
    }

    /// How the job of each device stood when this was done to a Rotation, enrolments left out.
    pub(crate) fn states_at(&self, deed: &str) -> BTreeMap<String, String> {
        let mut get = self
            .0
            .prepare(
                "SELECT d.device, substr(a.what, 5) FROM audit a JOIN jobs j ON j.id = a.job JOIN devices d ON d.id = j.device
                 WHERE a.what LIKE 'job-%' AND j.kind <> 'enrol' AND a.id < (SELECT min(id) FROM audit WHERE what = ?1)
                 ORDER BY a.id",
            )
            .unwrap();
        let rows = get.query_map([deed], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The template that a breach has blocked, if one has.
    pub(crate) fn blocked_template(&self) -> Option<String> {
        let found = self
            .0
            .query_row("SELECT template FROM template_blocks", [], |row| row.get(0));
        found.ok()
    }
}
