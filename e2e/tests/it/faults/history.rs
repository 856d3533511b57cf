//! What the ledger remembers of the jobs: read beside the controller, from its own file.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// The ledger's file, for reading.
pub(crate) struct History(pub(crate) Connection);

/// Keeps everybody else from writing until it is dropped.
pub(super) struct Lock(Connection);

impl Lock {
    pub(super) fn take(ledger: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(ledger)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self(db))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.execute_batch("ROLLBACK");
    }
}

impl History {
    pub(crate) fn open(ledger: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open_with_flags(ledger, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self(db))
    }

    fn number(&self, query: &str) -> usize {
        let number: i64 = self.0.query_row(query, [], |row| row.get(0)).unwrap();
        usize::try_from(number).unwrap()
    }

    /// Steps of all jobs but enrolments.
    pub(crate) fn steps(&self) -> usize {
        self.number(
            "SELECT count(*) FROM audit a JOIN jobs j ON j.id = a.job
             WHERE a.what LIKE 'job-%' AND j.kind <> 'enrol'",
        )
    }

    /// Jobs that reached this state at some time.
    pub(crate) fn reached(&self, state: &str) -> usize {
        let query = format!(
            "SELECT count(DISTINCT a.job) FROM audit a JOIN jobs j ON j.id = a.job
             WHERE a.what = 'job-{state}' AND j.kind <> 'enrol'"
        );
        self.number(&query)
    }

    /// Jobs, enrolments left out, that ended at some time in another way than by their confirmation.
    pub(crate) fn went_wrong(&self) -> usize {
        self.number(
            "SELECT count(DISTINCT a.job) FROM audit a JOIN jobs j ON j.id = a.job
             WHERE j.kind <> 'enrol' AND a.what IN
                ('job-rejected', 'job-failed', 'job-timedout', 'job-rolledback', 'job-cancelled', 'job-lost')",
        )
    }

    /// Devices whose object does not show yet what the ledger has.
    pub(crate) fn unshown(&self) -> usize {
        self.number("SELECT count(*) FROM devices WHERE declared = 1 AND project_rev > projected_rev")
    }

    /// Rotations that have not ended.
    pub(super) fn rotations_open(&self) -> usize {
        self.number("SELECT count(*) FROM rotations WHERE ended IS NULL")
    }

    /// Devices that an object declares.
    pub(crate) fn declared(&self) -> BTreeSet<String> {
        let mut get = self.0.prepare("SELECT device FROM devices WHERE declared = 1").unwrap();
        let rows = get.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// SHA-256 of the certificate that a device has now.
    pub(crate) fn current(&self, device: &str) -> Option<String> {
        let mut get = self
            .0
            .prepare("SELECT c.fingerprint FROM devices d JOIN certificates c ON c.id = d.current WHERE d.device = ?1")
            .unwrap();
        let fingerprint: Option<Vec<u8>> = get.query_row([device], |row| row.get(0)).ok();
        fingerprint.map(hex::encode)
    }

    /// Devices that hold a slot now.
    pub(crate) fn in_flight(&self) -> usize {
        self.number(
            "SELECT count(*) FROM devices WHERE job_open = 1 AND job_kind <> 'enrol'
                AND job_state IN ('Sent', 'Accepted', 'Issued', 'Committing')",
        )
    }

    /// A device whose job is in this state now.
    pub(crate) fn device_in(&self, state: &str) -> Option<String> {
        let mut get = self
            .0
            .prepare("SELECT device FROM devices WHERE job_open = 1 AND job_state = ?1 ORDER BY device LIMIT 1")
            .unwrap();
        get.query_row([state], |row| row.get(0)).ok()
    }

    /// CA certificates ever made.
    pub(crate) fn authorities(&self) -> usize {
        self.number("SELECT count(*) FROM certificates WHERE kind = 'Authority'")
    }

    /// Devices' certificates ever issued.
    pub(crate) fn issued(&self) -> usize {
        self.number("SELECT count(*) FROM certificates WHERE kind = 'Device'")
    }

    /// Kinds of the jobs that a device has had, in their order.
    pub(crate) fn kinds(&self, device: &str) -> Vec<String> {
        let mut get = self
            .0
            .prepare(
                "SELECT j.kind FROM jobs j JOIN devices d ON d.id = j.device
                 WHERE d.device = ?1 ORDER BY j.created, j.id",
            )
            .unwrap();
        let rows = get.query_map([device], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The most devices that held a slot at the same time, enrolments left out.
    pub(crate) fn peak_in_flight(&self) -> usize {
        let mut get = self
            .0
            .prepare(
                "SELECT a.what, a.job FROM audit a JOIN jobs j ON j.id = a.job
                 WHERE a.what LIKE 'job-%' AND j.kind <> 'enrol' ORDER BY a.id",
            )
            .unwrap();
        let mut lines = get.query([]).unwrap();
        let (mut holding, mut peak) = (BTreeSet::<Vec<u8>>::new(), 0);
        while let Some(line) = lines.next().unwrap() {
            let (what, job): (String, Vec<u8>) = (line.get(0).unwrap(), line.get(1).unwrap());
            match what.as_str() {
                "job-sent" | "job-accepted" | "job-issued" | "job-committing" => {
                    holding.insert(job);
                }
                _ => {
                    holding.remove(&job);
                }
            }
            peak = peak.max(holding.len());
        }
        peak
    }
}
