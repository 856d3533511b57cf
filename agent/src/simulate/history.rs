//! What simulated devices do, step by step, written down as it happens: for whoever judges a rotation by its devices.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use certwave_protocol::ids::{DeviceId, Fingerprint, JobId};
use certwave_protocol::message::Progress;
use serde::Serialize;

use super::watch::{Seen, lock};
use crate::journal::{Goal, Journal};

/// A file of lines; each is written at once, so that a power cut for all devices loses none.
#[derive(Debug)]
pub struct History(Mutex<File>);

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    /// Unix milliseconds, by this machine's clock whatever the device's own says.
    at: u128,
    device: &'a DeviceId,
    connected: bool,
    /// SHA-256 of the leaf that it starts from.
    leaf: Option<Fingerprint>,
    /// Its latest job.
    job: Option<JobId>,
    /// What that job wants to reach.
    goal: Option<Goal>,
    progress: Option<Progress>,
}

impl History {
    /// Goes on with this file.
    pub fn append(file: &Path) -> anyhow::Result<Self> {
        let opened = File::options().create(true).append(true).open(file);
        let file = opened.with_context(|| format!("cannot write to {}", file.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Adds how a device stands now.
    pub(super) fn note(&self, device: &DeviceId, journal: &Journal, seen: &Seen) {
        let mut file = lock(&self.0);
        // Taken while nobody else writes: lines are in the order of their times.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Line {
            at: since.as_millis(),
            device,
            connected: seen.connected,
            leaf: journal.active.and_then(|slot| journal.held(slot)).map(|held| held.leaf),
            job: seen.job.as_ref().map(|job| job.id),
            goal: journal.job.as_ref().map(|job| job.goal),
            progress: seen.job.as_ref().map(|job| job.progress),
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        if let Err(error) = file.write_all(&text) {
            tracing::warn!(%error, "a line of the history is lost");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use certwave_protocol::message::Slot;

    use super::*;
    use crate::journal::Held;

    #[test]
    fn each_step_is_a_line_and_a_simulator_that_starts_again_goes_on_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let device: DeviceId = "sim-1".parse().unwrap();
        let mut journal = Journal::new(Fingerprint([0; 32]));
        let mut seen = Seen::default();
        History::append(&path).unwrap().note(&device, &journal, &seen);
        journal.active = Some(Slot::A);
        *journal.slots.get_mut(Slot::A) = Some(Held {
            leaf: Fingerprint([7; 32]),
            not_before: 0,
            not_after: 1,
            confirmed: true,
        });
        seen.connected = true;
        History::append(&path).unwrap().note(&device, &journal, &seen);

        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [before, after] = lines.as_slice() else {
            panic!("{text}")
        };
        assert_eq!(before["leaf"], serde_json::Value::Null);
        assert_eq!(after["leaf"], "07".repeat(32));
        assert_eq!(
            (&before["connected"], &after["connected"]),
            (&false.into(), &true.into())
        );
        assert!(before["at"].as_u64() <= after["at"].as_u64());
    }
}
