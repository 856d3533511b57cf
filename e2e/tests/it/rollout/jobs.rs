//! Jobs of a Rotation, as the ledger has them.

use crate::faults::history::History;

impl History {
    /// How many jobs of a Rotation were sent so far, those sent anew included.
    pub(crate) fn sent(&self, rotation: &str) -> usize {
        self.count(
            "SELECT count(*) FROM audit a JOIN jobs j ON j.id = a.job JOIN rotations r ON r.uid = j.rotation
             WHERE a.what = 'job-sent' AND r.name = ?1",
            rotation,
        )
    }

    /// When jobs of a Rotation were sent, Unix milliseconds.
    pub(crate) fn sent_at(&self, rotation: &str) -> Vec<i64> {
        let mut get = self
            .0
            .prepare(
                "SELECT a.at FROM audit a JOIN jobs j ON j.id = a.job JOIN rotations r ON r.uid = j.rotation
                 WHERE a.what = 'job-sent' AND r.name = ?1 ORDER BY a.id",
            )
            .unwrap();
        let rows = get.query_map([rotation], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// How many devices have a rollback job of a Rotation that was sent and has not ended.
    pub(crate) fn going_back(&self, rotation: &str) -> usize {
        self.count(
            "SELECT count(*) FROM devices d JOIN rotations r ON r.uid = d.job_rotation
             WHERE r.name = ?1 AND d.job_open = 1 AND d.job_kind = 'rollback' AND d.job_state <> 'Queued'",
            rotation,
        )
    }

    /// How many of a Rotation's members hold a slot now.
    pub(crate) fn flying(&self, rotation: &str) -> usize {
        self.count(
            "SELECT count(*) FROM devices d JOIN rotations r ON r.uid = d.job_rotation
             WHERE r.name = ?1 AND d.job_open = 1 AND d.job_state <> 'Queued'",
            rotation,
        )
    }

    /// Rows of everything that a Rotation could leave behind, and of the certificates issued.
    pub(crate) fn rows(&self) -> Vec<usize> {
        let tables = ["rotations", "members", "jobs", "certificates", "template_blocks"];
        let rows = |table: &str| self.count(&format!("SELECT count(*) FROM {table} WHERE ?1 = ?1"), "");
        tables.into_iter().map(rows).collect()
    }

    fn count(&self, query: &str, with: &str) -> usize {
        let count: i64 = self.0.query_row(query, [with], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }
}
