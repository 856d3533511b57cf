//! Carries a decision out: one transaction in the ledger, then words.

use certwave_core::model::{Device, Identity, Job, JobKind, JobState};
use certwave_core::policy::JobPolicy;
use certwave_core::step::{self, Context, Decision, Event, Send};
use certwave_ledger::{AuditEntry, CertificateRecord, ClaimUse, FleetKey, LedgerError, MemberOutcome, Write};
use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::message::{self, Body, Commit, Der, Payload, Task};
use certwave_protocol::topic::User;

use super::retire::void;
use super::{Engine, describe};
use crate::clock::now;
use crate::notice::Notice;

/// `last_seen` alone is written at most this often, milliseconds.
const SEEN: i64 = 10 * 60 * 1000;
/// A write that keeps meeting faster ones gives up; the device's next message finds the new state.
const TRIES: usize = 8;

/// What goes into the same transaction as a device's change.
#[derive(Default)]
pub(super) struct With {
    pub(super) certificate: Option<CertificateRecord>,
    pub(super) claim_use: Option<ClaimUse>,
}

impl Engine {
    /// How this device's job runs: as its Rotation says, else as its fleet says.
    pub(super) fn policy(&self, device: &Device) -> JobPolicy {
        let rotation = device.job.as_ref().and_then(|job| job.rotation.as_deref());
        self.policy_of(device, rotation)
    }

    /// How a job of this device runs that belongs to `rotation`.
    pub(super) fn policy_of(&self, device: &Device, rotation: Option<&str>) -> JobPolicy {
        match rotation.and_then(|uid| self.registry.rotation(uid)) {
            Some(rotation) => rotation.strategy.job.clone(),
            None => self
                .registry
                .fleet(&FleetKey::of(device))
                .map_or_else(JobPolicy::default, |fleet| fleet.strategy.job.clone()),
        }
    }

    /// Lets something happen to a device that nobody sent: reads, decides, writes, speaks.
    pub(super) async fn happen(&self, identity: &Identity, event: Event) -> Result<(), LedgerError> {
        for _ in 0..TRIES {
            let Some(device) = self.ledger.device(identity).await? else {
                return Ok(());
            };
            let policy = self.policy(&device);
            let ctx = Context {
                now: now(),
                epoch: self.epoch,
                policy: &policy,
            };
            match self
                .carry_out(&device, step::step(&ctx, &device, &event), With::default())
                .await
            {
                Err(LedgerError::Conflict) => {}
                other => return other,
            }
        }
        Err(LedgerError::Conflict)
    }

    /// Writes what `decision` changes and says what it says. Refusals are the caller's.
    pub(super) async fn carry_out(&self, before: &Device, decision: Decision, with: With) -> Result<(), LedgerError> {
        match decision {
            Decision::Same(None) | Decision::Refuse(..) | Decision::Issue => Ok(()),
            Decision::Same(Some(send)) => {
                self.send(before, send).await;
                Ok(())
            }
            Decision::Change { device, send } => {
                if worth_writing(before, &device) || with.certificate.is_some() {
                    self.write(before, (*device).clone(), with).await?;
                }
                if let Some(send) = send {
                    self.send(&device, send).await;
                }
                Ok(())
            }
        }
    }

    /// One transaction: the device, its job, and what belongs to them.
    #[tracing::instrument(level = "debug", name = "record", skip_all)]
    pub(super) async fn write(&self, before: &Device, device: Device, with: With) -> Result<(), LedgerError> {
        let at = now();
        let moved = state_change(before, &device);
        let sent_certificate = with.certificate.as_ref().map(|c| c.fingerprint);
        let mut write = Write::of(device.clone(), at);
        write.project = moved.is_some() || before.current != device.current;
        write.sent_certificate = sent_certificate;
        write.certificate = with.certificate;
        write.claim_use = with.claim_use;
        if let Some(job) = moved {
            write.retirement = self.retirement(before, &device, at).await?;
            write.mark = void(before, &device, at);
            write.member = member(&self.policy(&device), job);
            write.audit.push(AuditEntry {
                at,
                who: "controller".to_owned(),
                what: format!("job-{}", job.state.as_str().to_ascii_lowercase()),
                identity: Some(device.id.clone()),
                job: Some(job.id),
                detail: job.code.map(|c| c.to_string()),
            });
        }
        let marks = write.mark.is_some();
        self.ledger.write(self.epoch, write).await?;
        if marks {
            self.registry.standing_moved();
        }
        if sent_certificate.is_some() {
            self.metrics.certificates_issued.with_label_values(&["device"]).inc();
        }
        if let Some(job) = moved {
            self.moved(&device, job);
        }
        Ok(())
    }

    /// Counts and tells what a job's change of state means to people.
    fn moved(&self, device: &Device, job: &Job) {
        let (kind, state) = (kind(&job.kind), job.state);
        let (namespace, fleet) = (device.object.namespace.as_str(), device.fleet.as_str());
        if state == JobState::Sent {
            let started = &self.metrics.fleets.jobs_started;
            started.with_label_values(&[namespace, fleet, kind]).inc();
        }
        if state.ended() || state == JobState::Queued {
            self.registry.nudge();
        }
        if !state.ended() {
            return;
        }
        self.pace.freed(&FleetKey::of(device), job.rotation.as_deref());
        let code = job.code.map_or("none", |c| c.as_str());
        let ended = &self.metrics.fleets.jobs_ended;
        ended
            .with_label_values(&[namespace, fleet, kind, state.as_str(), code])
            .inc();
        if state.went_wrong() {
            let detail = job.detail.clone().unwrap_or_default();
            tracing::warn!(device = describe(&device.id), job = %job.id, state = state.as_str(), code, detail, "job ended");
            self.notify(Notice::JobFailed {
                object: device.object.clone(),
                fleet: FleetKey::of(device),
                code: job.code.unwrap_or(certwave_protocol::code::Code::Other),
                detail,
            });
        } else {
            tracing::debug!(device = describe(&device.id), job = %job.id, state = state.as_str(), "job ended");
        }
    }

    /// Says one thing to the device, on the connection it was last heard on.
    pub(super) async fn send(&self, device: &Device, what: Send) {
        let Some(speaker) = self.links.get(&device.id.broker) else {
            return;
        };
        let (Some(job), Some(session)) = (&device.job, device.session) else {
            return;
        };
        let Some(body) = self.body(device, job, what).await else {
            return;
        };
        let payload = Payload {
            v: VERSION,
            broker: device.id.broker.clone(),
            device: device.id.device.clone(),
            session,
            job: Some(job.id),
            nonce: Some(job.nonce),
            epoch: Some(self.epoch),
            body,
        };
        speaker.say(&User::Device(device.id.device.clone()), &payload);
    }

    async fn body(&self, device: &Device, job: &Job, what: Send) -> Option<Body> {
        match what {
            Send::Commit => Some(Body::Commit(Commit { subject: job.subject? })),
            Send::Certificate => self.certificate(device).await.map(Body::Certificate),
            Send::Job => {
                let fleet = self.registry.fleet(&FleetKey::of(device))?;
                let policy = self.policy(device);
                let task = match &job.kind {
                    JobKind::Rotate | JobKind::Enrol => Task::Rotate {
                        algorithms: fleet.algorithms.clone(),
                    },
                    JobKind::Rollback => Task::Rollback {
                        to: device.previous.as_ref()?.fingerprint,
                    },
                    JobKind::Trust(bundle) => {
                        // Another bundle has been decided meanwhile: this job must not hand that out under the old hash.
                        if fleet.bundle != *bundle {
                            return None;
                        }
                        Task::Trust {
                            anchors: fleet.anchors.clone(),
                            bundle: *bundle,
                        }
                    }
                };
                Some(Body::Job(message::Job {
                    task,
                    attempt: job.attempt,
                    step_timeout: seconds(policy.step_timeout),
                    trial_timeout: seconds(policy.trial_timeout),
                }))
            }
        }
    }

    /// The pending certificate as the device is to get it.
    pub(super) async fn certificate(&self, device: &Device) -> Option<message::Certificate> {
        let pending = device.pending.as_ref()?;
        let stored = match self.ledger.certificate(&pending.fingerprint).await {
            Ok(stored) => stored?,
            Err(error) => {
                self.ledger_failed(&error);
                return None;
            }
        };
        let issuer = self.registry.issuer(&pending.issuer)?;
        let policy = self.policy(device);
        Some(message::Certificate {
            leaf: Der(stored.record.der),
            chain: issuer.ca.issuing_chain().map(|c| Der(c.to_vec())).collect(),
            trial_timeout: seconds(policy.trial_timeout),
        })
    }
}

/// Milliseconds as whole seconds, at least one.
pub(super) fn seconds(millis: i64) -> u32 {
    u32::try_from((millis / 1000).max(1)).unwrap_or(u32::MAX)
}

/// The job, where its state differs from before.
fn state_change<'d>(before: &Device, after: &'d Device) -> Option<&'d Job> {
    let job = after.job.as_ref()?;
    let same = before
        .job
        .as_ref()
        .is_some_and(|b| b.id == job.id && b.state == job.state);
    (!same).then_some(job)
}

/// False where nothing but the time of last contact moved, and that not by much.
fn worth_writing(before: &Device, after: &Device) -> bool {
    let fresh = match (before.last_seen, after.last_seen) {
        // A clock that was put back counts anew.
        (Some(b), Some(a)) => (0..SEEN).contains(&a.saturating_sub(b)),
        (None, Some(_)) => false,
        _ => true,
    };
    let mut same = after.clone();
    same.last_seen = before.last_seen;
    !(fresh && same == *before)
}

/// How the device stands in its Rotation after this change; `None` is as the job's state says.
fn member(policy: &JobPolicy, job: &Job) -> Option<MemberOutcome> {
    job.rotation.as_ref()?;
    // A person's will is no failure of the rotation.
    if job.code == Some(Code::Revoked) && job.state.ended() {
        return Some(MemberOutcome::Skipped);
    }
    // One that is to be sent back stands as such, whatever becomes of the job.
    let back = job.kind == JobKind::Rollback;
    // A trust job is the way to the leaf, not the end of it; a job that was cancelled is made again, the right way.
    let on_the_way =
        job.state == JobState::Cancelled || (matches!(job.kind, JobKind::Trust(_)) && job.state == JobState::Confirmed);
    // One that vanished counts as such until it accepts another job; see `try_again`.
    let again = job.state != JobState::TimedOut && step::will_retry(policy, job);
    let in_line = !back && (on_the_way || again);
    in_line.then_some(MemberOutcome::Planned)
}

/// A job's kind as a metric label.
fn kind(kind: &JobKind) -> &'static str {
    match kind {
        JobKind::Enrol => "enrol",
        JobKind::Rotate => "rotate",
        JobKind::Rollback => "rollback",
        JobKind::Trust(_) => "trust",
    }
}
