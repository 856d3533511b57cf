//! What the engine wants people to know: events on fleets and failed devices, conditions on devices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::model::ObjectRef;
use certwave_core::retire::Why;
use certwave_crds::{DeviceCertificate, Fleet};
use certwave_ledger::FleetKey;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::error::{Error, Result};
use super::projection::{CLOCK_SKEW, ENROLMENT_REFUSED, Show};
use super::shared::Shared;
use super::status::{Verdict, camel_case, shorten};
use crate::notice::Notice;

/// Events in one go,
const BURST: f64 = 25.0;
/// and per second beyond that: a fleet that fails as a whole must not flood the API server.
const PER_SECOND: f64 = 1.0;
/// An event's note may have 1 KiB.
const NOTE: usize = 1000;

/// Runs for ever.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut notices: mpsc::Receiver<Notice>,
    mut own: mpsc::Receiver<Notice>,
    show: mpsc::Sender<Show>,
) -> Result<()> {
    let reporter = Reporter {
        controller: "certwave".to_owned(),
        instance: None,
    };
    let mut publisher = Publisher {
        recorder: Recorder::new(shared.client.clone(), reporter),
        shared,
        budget: Budget::new(Instant::now()),
    };
    loop {
        let notice = tokio::select! {
            Some(notice) = notices.recv() => notice,
            Some(notice) = own.recv() => notice,
            else => break,
        };
        if let Some(aspect) = aspect(&notice) {
            let _ = show.send(aspect).await;
        }
        publisher.publish(&notice).await;
    }
    // The engine has ended, and with it everything.
    std::future::pending::<()>().await;
    Err(Error::Ended("notices"))
}

/// The condition that a notice becomes.
fn aspect(notice: &Notice) -> Option<Show> {
    match notice {
        Notice::JobFailed { .. }
        | Notice::ProbationFailed { .. }
        | Notice::DeletionRevoked { .. }
        | Notice::DeletionKept { .. } => None,
        Notice::EnrolmentRefused {
            object, code, detail, ..
        } => Some(Show::Aspect {
            object: object.clone()?,
            kind: ENROLMENT_REFUSED,
            verdict: Verdict::yes(&camel_case(code.as_str()), format!("a claim was refused: {detail}")),
        }),
        Notice::ClockSkew { object, seconds } => Some(Show::Aspect {
            object: object.clone(),
            kind: CLOCK_SKEW,
            verdict: Verdict::yes("ClockSkew", format!("the device's clock is {}; set it", skew(*seconds))),
        }),
        Notice::ClockRight { object } => Some(Show::Settled {
            object: object.clone(),
            kind: CLOCK_SKEW,
        }),
    }
}

/// In steps, so that a clock that drifts does not change the status with each message.
fn skew(seconds: i64) -> String {
    let (amount, direction) = (seconds.unsigned_abs(), if seconds < 0 { "behind" } else { "ahead" });
    match amount {
        0..3600 => format!("minutes {direction}"),
        3600..86_400 => format!("hours {direction}"),
        86_400..31_536_000 => format!("{} days {direction}", amount / 86_400),
        _ => format!("{} years {direction}", amount / 31_536_000),
    }
}

struct Publisher {
    recorder: Recorder,
    shared: Arc<Shared>,
    budget: Budget,
}

impl Publisher {
    async fn publish(&mut self, notice: &Notice) {
        match notice {
            Notice::JobFailed {
                object,
                fleet,
                code,
                detail,
            } => {
                let note = format!("{}: the job failed: {code}: {detail}", object.name);
                self.warn(fleet, Some(object), "JobFailed", note).await;
            }
            Notice::ProbationFailed { object, fleet, why } => {
                let what = match why {
                    Why::WentBack => "it has gone back to its old certificate",
                    _ => "it did not come back by its new certificate in time",
                };
                let note = format!(
                    "{}: {what}; the hold on the old one is released, and it must be rotated before that expires",
                    object.name
                );
                self.warn(fleet, Some(object), "ProbationFailed", note).await;
            }
            Notice::EnrolmentRefused {
                object,
                fleet: Some(fleet),
                device,
                code,
                detail,
            } => {
                let note = format!("device {device}: enrolment refused: {code}: {detail}");
                self.warn(fleet, object.as_ref(), "EnrolmentRefused", note).await;
            }
            Notice::DeletionRevoked {
                fleet,
                device,
                certificates,
            } => {
                let note = format!("device {device}: its object was deleted: {certificates} certificates revoked");
                self.say(EventType::Normal, fleet, None, "RevokedByDeletion", note)
                    .await;
            }
            Notice::DeletionKept { fleet, device, why } => {
                let note = format!(
                    "device {device}: its object was deleted, but nothing was revoked: {why}; declare it again with \
                     spec.revocation if it must be"
                );
                self.warn(fleet, None, "NotRevoked", note).await;
            }
            Notice::EnrolmentRefused { fleet: None, .. } | Notice::ClockSkew { .. } | Notice::ClockRight { .. } => {}
        }
    }

    /// Says it on the fleet, and on the device if there is one.
    async fn warn(&mut self, fleet: &FleetKey, device: Option<&ObjectRef>, reason: &str, note: String) {
        self.say(EventType::Warning, fleet, device, reason, note).await;
    }

    async fn say(
        &mut self,
        type_: EventType,
        fleet: &FleetKey,
        device: Option<&ObjectRef>,
        reason: &str,
        note: String,
    ) {
        if !self.budget.take(Instant::now()) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(&note, NOTE)),
            action: reason.to_owned(),
            secondary: None,
        };
        let mut references = Vec::new();
        if let Some(entry) = self.shared.registry.fleet(fleet) {
            references.push(reference::<Fleet>(
                &fleet.namespace,
                &fleet.name,
                Some(entry.uid.clone()),
            ));
        }
        if let Some(device) = device {
            let api = self.shared.api::<DeviceCertificate>(&device.namespace);
            if let Ok(Some(found)) = api.get_metadata_opt(&device.name).await {
                references.push(reference::<DeviceCertificate>(
                    &device.namespace,
                    &device.name,
                    found.metadata.uid,
                ));
            }
        }
        for reference in references {
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(%error, "cannot publish an event");
            }
        }
    }
}

fn reference<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid,
        ..ObjectReference::default()
    }
}

/// A token bucket.
struct Budget {
    tokens: f64,
    filled: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained: Duration = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + gained.as_secs_f64() * PER_SECOND).min(BURST);
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_a_burst_and_then_slowly() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let granted = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(granted, 25);
        assert!(budget.take(start + Duration::from_secs(1)));
        assert!(!budget.take(start + Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_drifts_says_the_same_for_long() {
        assert_eq!(skew(-400), skew(-500));
        assert_eq!(skew(3 * 31_536_000 + 5), "3 years ahead");
    }
}
