//! Makes what happened visible: events on the Rotation, metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use certwave_core::rollout::judge::Note;
use certwave_core::rollout::run::Ended;
use certwave_crds::{Rotation, RotationPhase};
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::view::Observed;
use super::{fleet_key, people};
use crate::metrics::Metrics;
use crate::reconcile::shared::Shared;
use crate::reconcile::status::shorten;

/// An event's note may have 1 KiB.
const NOTE: usize = 1000;

/// See the module.
pub(super) struct Teller {
    recorder: Recorder,
    metrics: Arc<Metrics>,
    told: Mutex<HashMap<String, Told>>,
}

/// What was told of one Rotation.
#[derive(Default)]
struct Told {
    phase: Option<RotationPhase>,
    reason: String,
}

impl Teller {
    pub(super) fn new(shared: &Shared) -> Self {
        let reporter = Reporter {
            controller: "certwave".to_owned(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(shared.client.clone(), reporter),
            metrics: Arc::clone(&shared.metrics),
            told: Mutex::default(),
        }
    }

    /// An event for what happened.
    pub(super) async fn notes(&self, object: &Rotation, notes: &[Note]) {
        let fleet = fleet_key(object);
        for note in notes {
            let (kind, reason, words) = match note {
                Note::WaveBegan(wave) => (EventType::Normal, "WaveBegan", format!("wave {} begins", wave + 1)),
                Note::Breached(breach) => {
                    let cause = format!("{:?}", breach.cause).to_lowercase();
                    let labels = [fleet.namespace.as_str(), fleet.name.as_str(), cause.as_str()];
                    self.metrics.rotations.breaches.with_label_values(&labels).inc();
                    let words = format!("wave {}: {}", breach.wave + 1, breach.detail);
                    (EventType::Warning, "LimitExceeded", words)
                }
                Note::RolledBack(wave) => (
                    EventType::Normal,
                    "WaveRolledBack",
                    format!(
                        "the devices of wave {} that could go back are on their old certificates",
                        wave + 1
                    ),
                ),
                Note::Resumed(word) => {
                    let who = people::who(object, "resume");
                    (EventType::Normal, "Resumed", format!("{who} resumed it: {word}"))
                }
                Note::SentBack(word) => {
                    let who = people::who(object, "rollback");
                    let words = format!("{who} sends the devices of the wave back to their old certificates: {word}");
                    (EventType::Warning, "SentBack", words)
                }
                Note::Retried(word) => {
                    let who = people::who(object, "retryFailed");
                    let words = format!("{who} asked for another try of failed devices: {word}");
                    (EventType::Normal, "RetryFailed", words)
                }
                Note::Approved(wave) => {
                    let who = people::who(object, "approval");
                    (
                        EventType::Normal,
                        "Approved",
                        format!("{who} approved through wave {wave}"),
                    )
                }
                Note::Paused => {
                    let who = people::who(object, "state");
                    (EventType::Normal, "PausedByPerson", format!("{who} paused it"))
                }
                Note::Continued => {
                    let who = people::who(object, "state");
                    (EventType::Normal, "Continued", format!("{who} lets it go on"))
                }
                Note::Ended(ended) => {
                    let word = match ended {
                        Ended::Complete => "complete",
                        Ended::Failed => "failed",
                        Ended::Aborted => "aborted",
                    };
                    let labels = [fleet.namespace.as_str(), fleet.name.as_str(), word];
                    self.metrics.rotations.ended.with_label_values(&labels).inc();
                    continue;
                }
            };
            tracing::info!(rotation = object.metadata.name, reason, words, "rotation");
            self.publish(object, kind, reason, words).await;
        }
    }

    /// An event for each change of phase, and of what a Rotation waits for before it begins.
    pub(super) async fn phase(&self, object: &Rotation, phase: Option<RotationPhase>, observed: &Observed<'_>) {
        let (Some(uid), Some(phase)) = (object.metadata.uid.clone(), phase) else {
            return;
        };
        let reason = observed.waiting.as_ref().map(|v| v.reason.clone()).unwrap_or_default();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told.entry(uid).or_default();
            let shown = object.status.as_ref().and_then(|status| status.phase);
            // After a restart the object says what was told.
            let before = told.phase.or(shown);
            let same = before == Some(phase) && (told.phase.is_none() || told.reason == reason);
            (told.phase, told.reason) = (Some(phase), reason.clone());
            if same {
                return;
            }
        }
        let kind = match phase {
            RotationPhase::Breached | RotationPhase::RollingBack | RotationPhase::Failed => EventType::Warning,
            _ => EventType::Normal,
        };
        let words = match &observed.waiting {
            Some(verdict) => format!("{}: {}", verdict.reason, verdict.message),
            None if phase == RotationPhase::Aborted => format!("{} aborted it", people::who(object, "state")),
            None => format!("the rotation is {}", words(phase)),
        };
        self.publish(object, kind, &format!("{phase:?}"), words).await;
    }

    async fn publish(&self, object: &Rotation, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(&note, NOTE)),
            action: "Rotate".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, "cannot publish an event");
        }
    }

    /// A Rotation has stopped or ended: nothing more is told of it.
    pub(super) fn forget(&self, uid: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn words(phase: RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Pending => "waiting",
        RotationPhase::Previewed => "previewed; nothing was changed",
        RotationPhase::Running => "running",
        RotationPhase::Soaking => "soaking: the wave must stay well for a while",
        RotationPhase::WaitingForApproval => "waiting for a person's approval",
        RotationPhase::Paused => "paused",
        RotationPhase::Breached => "stopped by a breach",
        RotationPhase::RollingBack => "sending devices back to their old certificates",
        RotationPhase::RolledBack => "rolled back; a person must resume or abort it",
        RotationPhase::Complete => "complete",
        RotationPhase::Failed => "over: a limit was exceeded",
        RotationPhase::Aborted => "aborted",
    }
}
