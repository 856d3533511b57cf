//! Whether device, ledger and object say the same of a device when all is over.

use std::collections::BTreeMap;

use certwave_crds::{DeviceCertificate, DeviceState, JobState};
use certwave_protocol::message::Progress;
use serde::Deserialize;
use serde_json::Value;

/// What a device says by its simulator's report, and what lies on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDevice {
    /// Connected under its own name.
    pub connected: bool,
    /// SHA-256 of the leaf that it starts from.
    pub leaf: Option<String>,
    /// Id of its latest job, 32 lower-case hex digits, and how far it is with it.
    pub job: Option<(String, Progress)>,
}

/// What the ledger's tables have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InLedger {
    /// The device's id.
    pub device: String,
    /// SHA-256 of its current certificate.
    pub current: Option<String>,
    /// Id of its latest job, 32 lower-case hex digits.
    pub job: Option<String>,
    /// How far that is.
    pub state: Option<String>,
    /// 1 when something is not shown yet.
    pub unshown: i64,
}

/// What the `DeviceCertificate` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InObject {
    /// SHA-256 of its current certificate.
    pub current: Option<String>,
    /// Its state.
    pub state: Option<DeviceState>,
    /// Id of its latest job, 32 lower-case hex digits, and how far that is.
    pub job: Option<(String, JobState)>,
}

impl From<&DeviceCertificate> for InObject {
    fn from(device: &DeviceCertificate) -> Self {
        let status = device.status.as_ref();
        let job = status.and_then(|status| status.job.as_ref());
        Self {
            current: crate::tally::current(device),
            state: status.and_then(|status| status.state),
            job: job.map(|job| (plain(&job.id), job.state)),
        }
    }
}

/// A UUID without its dashes.
pub fn plain(uuid: &str) -> String {
    uuid.replace('-', "").to_lowercase()
}

/// What all three say of all devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// By device.
    pub devices: BTreeMap<String, OnDevice>,
    /// By device.
    pub ledger: BTreeMap<String, InLedger>,
    /// By device.
    pub objects: BTreeMap<String, InObject>,
}

impl Standing {
    /// What keeps each of these devices from being connected, with a certificate that the last Rotation brought, and told of in the
    /// same way by all three. `before` are the certificates of before that Rotation.
    pub fn disagreements(&self, ids: &[String], before: &BTreeMap<String, String>) -> Vec<String> {
        let mut found = Vec::new();
        for id in ids {
            let (Some(device), Some(ledger), Some(object)) =
                (self.devices.get(id), self.ledger.get(id), self.objects.get(id))
            else {
                found.push(format!("{id}: device, ledger or object is gone"));
                continue;
            };
            let mut say = |what: String| found.push(format!("{id} {what}"));
            if !device.connected {
                say("is not connected".to_owned());
            }
            if device.leaf.is_none() || device.leaf.as_ref() == before.get(id) {
                say(format!(
                    "starts from {:?}, which the last Rotation did not bring",
                    device.leaf
                ));
            }
            if ledger.current != device.leaf {
                say(format!(
                    "starts from {:?}; the ledger has {:?}",
                    device.leaf, ledger.current
                ));
            }
            if object.current != device.leaf {
                say(format!(
                    "starts from {:?}; its object shows {:?}",
                    device.leaf, object.current
                ));
            }
            let jobs = (device.job.as_ref().map(|j| &j.0), object.job.as_ref().map(|j| &j.0));
            if jobs != (ledger.job.as_ref(), ledger.job.as_ref()) {
                say(format!(
                    "had the jobs (device, object) {jobs:?}; the ledger has {:?}",
                    ledger.job
                ));
            }
            let ends = (
                device.job.as_ref().map(|job| job.1),
                ledger.state.as_deref(),
                object.job.as_ref().map(|job| job.1),
            );
            if ends != (Some(Progress::Committed), Some("Confirmed"), Some(JobState::Confirmed)) {
                say(format!(
                    "had a last job that ended as (device, ledger, object) {ends:?}"
                ));
            }
            if object.state != Some(DeviceState::Active) {
                say(format!("is {:?} by its object", object.state));
            }
            if ledger.unshown != 0 {
                say("changed in the ledger, and its object does not show it".to_owned());
            }
        }
        let strangers = self
            .ledger
            .keys()
            .chain(self.objects.keys())
            .filter(|id| !ids.contains(id));
        found.extend(strangers.map(|id| format!("{id} was never declared")));
        found
    }
}

/// The devices of a simulator's report.
///
/// # Errors
/// When it is none.
pub fn report(text: &[u8]) -> anyhow::Result<BTreeMap<String, OnDevice>> {
    #[derive(Deserialize)]
    struct Report {
        devices: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        connected: bool,
        certificate: Option<String>,
        job: Option<Job>,
    }
    #[derive(Deserialize)]
    struct Job {
        id: String,
        progress: Progress,
    }
    let report: Report = serde_json::from_slice(text)?;
    let told = |entry: Entry| {
        let leaf = entry
            .certificate
            .as_deref()
            .map(crate::device_files::sha256)
            .transpose()?;
        let device = OnDevice {
            connected: entry.connected,
            leaf,
            job: entry.job.map(|job| (plain(&job.id), job.progress)),
        };
        Ok((entry.id, device))
    };
    report.devices.into_iter().map(told).collect()
}

/// Rows of the ledger, as one JSON object each.
///
/// # Errors
/// When one lacks something.
pub fn rows(rows: impl IntoIterator<Item = Value>) -> anyhow::Result<BTreeMap<String, InLedger>> {
    let row = |value| {
        let row: InLedger = serde_json::from_value(value)?;
        Ok((row.device.clone(), row))
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Device `a`, about which all three agree.
    fn agreed() -> Standing {
        let ledger = json!({ "device": "a", "current": "new", "job": "01", "state": "Confirmed", "unshown": 0 });
        let device = OnDevice {
            connected: true,
            leaf: Some("new".to_owned()),
            job: Some(("01".to_owned(), Progress::Committed)),
        };
        let object = InObject {
            current: Some("new".to_owned()),
            state: Some(DeviceState::Active),
            job: Some(("01".to_owned(), JobState::Confirmed)),
        };
        Standing {
            devices: [("a".to_owned(), device)].into(),
            ledger: rows([ledger]).unwrap(),
            objects: [("a".to_owned(), object)].into(),
        }
    }

    fn found(change: impl FnOnce(&mut Standing)) -> Vec<String> {
        let mut standing = agreed();
        change(&mut standing);
        standing.disagreements(&["a".to_owned()], &[("a".to_owned(), "old".to_owned())].into())
    }

    #[test]
    fn three_that_agree_are_believed() {
        assert!(found(|_| {}).is_empty());
    }

    #[test]
    fn each_disagreement_is_seen() {
        type Case = (&'static str, fn(&mut Standing));
        let cases: [Case; 11] = [
            ("not connected", |s| s.devices.get_mut("a").unwrap().connected = false),
            ("the ledger has", |s| {
                s.ledger.get_mut("a").unwrap().current = Some("old".to_owned());
            }),
            ("its object shows", |s| {
                s.objects.get_mut("a").unwrap().current = Some("old".to_owned());
            }),
            ("did not bring", |s| {
                s.devices.get_mut("a").unwrap().leaf = Some("old".to_owned());
            }),
            ("did not bring", |s| s.devices.get_mut("a").unwrap().leaf = None),
            ("had the jobs", |s| {
                s.ledger.get_mut("a").unwrap().job = Some("02".to_owned());
            }),
            ("ended as", |s| {
                s.devices.get_mut("a").unwrap().job = Some(("01".to_owned(), Progress::TrialOver));
            }),
            ("ended as", |s| {
                s.ledger.get_mut("a").unwrap().state = Some("Committing".to_owned());
            }),
            ("by its object", |s| {
                s.objects.get_mut("a").unwrap().state = Some(DeviceState::Rotating);
            }),
            ("does not show it", |s| s.ledger.get_mut("a").unwrap().unshown = 1),
            ("is gone", |s| s.ledger.clear()),
        ];
        for (what, change) in cases {
            let found = found(change);
            assert!(found.iter().any(|said| said.contains(what)), "{what}: {found:?}");
        }
        let stranger = found(|s| {
            let row = s.ledger["a"].clone();
            s.ledger.insert("b".to_owned(), row);
        });
        assert_eq!(stranger, ["b was never declared"]);
    }
}
