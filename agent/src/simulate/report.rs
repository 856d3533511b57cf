//! What the simulator prints and writes.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certwave_protocol::ids::DeviceId;
use serde::Serialize;

use super::watch::{Seen, Shared, Totals, lock};

/// All devices.
pub struct Report {
    devices: Vec<(DeviceId, Arc<Mutex<Seen>>)>,
    shared: Arc<Shared>,
    /// The state of things that the file shows.
    written: AtomicU64,
}

#[derive(Serialize)]
struct Line<'a> {
    seconds: f64,
    devices: usize,
    connected: usize,
    #[serde(flatten)]
    totals: &'a Totals,
}

#[derive(Serialize)]
struct File {
    connected: usize,
    #[serde(flatten)]
    totals: Totals,
    devices: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: DeviceId,
    #[serde(flatten)]
    seen: Seen,
    /// PEM of the active slot's leaf.
    certificate: Option<String>,
    /// PEM of its intermediates.
    chain: Option<String>,
}

impl Report {
    /// An empty report.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            devices: Vec::new(),
            shared,
            written: AtomicU64::new(0),
        }
    }

    /// Adds a device.
    pub fn add(&mut self, id: DeviceId) -> Arc<Mutex<Seen>> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        self.devices.push((id, Arc::clone(&seen)));
        seen
    }

    /// A copy of what is seen of each device.
    pub fn devices(&self) -> Vec<(DeviceId, Seen)> {
        let copy = |(id, seen): &(DeviceId, Arc<Mutex<Seen>>)| (id.clone(), lock(seen).clone());
        self.devices.iter().map(copy).collect()
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    fn connected(&self) -> usize {
        self.devices.iter().filter(|(_, seen)| lock(seen).connected).count()
    }

    /// One line of JSON: the sums `elapsed` after the start.
    pub fn line(&self, elapsed: Duration) -> String {
        let line = Line {
            seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
            devices: self.devices.len(),
            connected: self.connected(),
            totals: &self.totals(),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Replaces the file, if something changed or `always`. With thousands of devices not in every second.
    pub fn write(&self, file: &Path, always: bool) -> anyhow::Result<()> {
        let changes = self.shared.changes();
        if !always && self.written.load(Ordering::Relaxed) == changes {
            return Ok(());
        }
        let devices = self
            .devices()
            .into_iter()
            .map(|(id, seen)| {
                let pem = seen.active.and_then(|slot| seen.pem.get(slot).clone());
                let (certificate, chain) = pem.unzip();
                Entry {
                    id,
                    seen,
                    certificate,
                    chain,
                }
            })
            .collect();
        let content = File {
            connected: self.connected(),
            totals: self.totals(),
            devices,
        };
        let temporary = file.with_extension("new");
        let mut out = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        serde_json::to_writer(&mut out, &content)?;
        out.flush()?;
        std::fs::rename(&temporary, file)?;
        self.written.store(changes, Ordering::Relaxed);
        Ok(())
    }
}
