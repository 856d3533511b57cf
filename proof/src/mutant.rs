//! Mistakes made on purpose, around what the real functions are given and what they answer: the properties must find each.

use certwave_agent::journal::{Journal, Phase};
use certwave_agent::machine::{Effect, Signer};
use certwave_core::model::{Device, JobKind, JobState};
use certwave_core::retire::{self, Act, Retirement, Why};
use certwave_core::step::{self, Context, Decision, Event, Send};
use certwave_protocol::code::Code;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::message::{Body, Payload, Slot, Status, Step};

use crate::symbols::PRESENT;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The controller revokes the old certificate when it issues the new one.
    RevokesOldAtIssue,
    /// The controller revokes the old certificate as soon as the job is confirmed.
    RevokesOldAtConfirm,
    /// The controller revokes a committed certificate when the job times out.
    RevokesNewAtTimeout,
    /// The controller commits what was not tested.
    CommitsUntested,
    /// The controller sends a device back by a certificate that was not tested for that.
    CommitsUntestedWayBack,
    /// The controller commits anchors that were not tested.
    CommitsUntestedAnchors,
    /// The controller takes the new certificate for the current one as soon as it is tested.
    ConfirmsAtTested,
    /// The controller carries a confirmation out again when it is said again.
    ConfirmsTwice,
    /// The controller hears nothing more of a job that has timed out.
    IgnoresLateProof,
    /// The controller takes messages of any job for the present one's.
    IgnoresJobAndNonce,
    /// The controller listens to a device that a person has revoked.
    IgnoresBar,
    /// The controller starts a job while another is open.
    StartsWhileBusy,
    /// The controller starts a job while the old certificate is on hold, or its release is not loaded.
    StartsAmidHold,
    /// The ledger lets a deposed controller write.
    LedgerIgnoresEpoch,
    /// Any `hello` ends a probation, without the nonce.
    TakesAnyHello,
    /// The device is asked before the door goes by the hold.
    AsksBeforeLoaded,
    /// The old certificate is revoked when the probation time is over.
    RevokesOnClock,
    /// The hold stays when the probation time is over.
    NeverReleases,
    /// The device makes the new key over the active one.
    KeyOverActive,
    /// The device makes the new key before its journal has let go of the slot.
    KeyBeforeJournal,
    /// The device does not store that it has obeyed a commit.
    ForgetsCommit,
    /// The device forgets the slot that it does not start from when the power goes.
    ForgetsOtherSlot,
    /// The device obeys older epochs.
    DeviceIgnoresEpoch,
    /// The device obeys what was said to an earlier connection.
    DeviceIgnoresSession,
    /// The device says that it went back and obeys the commit all the same.
    LiesAboutRollback,
}

impl Mutant {
    /// Every one.
    pub const ALL: [Self; 25] = [
        Self::RevokesOldAtIssue,
        Self::RevokesOldAtConfirm,
        Self::RevokesNewAtTimeout,
        Self::CommitsUntested,
        Self::CommitsUntestedWayBack,
        Self::CommitsUntestedAnchors,
        Self::ConfirmsAtTested,
        Self::ConfirmsTwice,
        Self::IgnoresLateProof,
        Self::IgnoresJobAndNonce,
        Self::IgnoresBar,
        Self::StartsWhileBusy,
        Self::StartsAmidHold,
        Self::LedgerIgnoresEpoch,
        Self::TakesAnyHello,
        Self::AsksBeforeLoaded,
        Self::RevokesOnClock,
        Self::NeverReleases,
        Self::KeyOverActive,
        Self::KeyBeforeJournal,
        Self::ForgetsCommit,
        Self::ForgetsOtherSlot,
        Self::DeviceIgnoresEpoch,
        Self::DeviceIgnoresSession,
        Self::LiesAboutRollback,
    ];

    /// Before the controller decides.
    pub(crate) fn heard(self, mut event: Event, device: &Device) -> Event {
        if self == Self::IgnoresJobAndNonce
            && let (Some(job), Event::Status { mark, .. } | Event::Tested { mark, .. } | Event::Csr { mark, .. }) =
                (&device.job, &mut event)
        {
            mark.id = job.id;
            mark.nonce = Some(job.nonce);
            mark.epoch = Some(job.epoch);
        }
        event
    }

    /// In place of the controller's decision.
    pub(crate) fn decide(self, ctx: &Context<'_>, device: &Device, event: &Event) -> Decision {
        if self == Self::IgnoresBar {
            let mut free = device.clone();
            free.bar = None;
            return step::step(ctx, &free, event);
        }
        step::step(ctx, device, event)
    }

    /// After the controller has decided.
    pub(crate) fn decided(self, before: &Device, event: &Event, decision: &mut Decision) {
        let state = before.job.as_ref().map(|j| j.state);
        let committed = matches!(event, Event::Status { report, .. } if report.step == Step::Committed);
        let said = committed || matches!(event, Event::Tested { .. } | Event::Hello { .. });
        match (self, &mut *decision) {
            (
                Self::CommitsUntested | Self::CommitsUntestedWayBack | Self::CommitsUntestedAnchors,
                Decision::Change { device, send },
            ) => {
                let meant = |kind: &JobKind| match self {
                    Self::CommitsUntestedWayBack => *kind == JobKind::Rollback,
                    Self::CommitsUntestedAnchors => matches!(kind, JobKind::Trust(_)),
                    _ => true,
                };
                let job = device.job.as_mut();
                if let Some(job) = job.filter(|j| j.state == JobState::Issued && meant(&j.kind)) {
                    job.committed = true;
                    *send = Some(Send::Commit);
                }
            }
            (Self::ConfirmsAtTested, Decision::Change { device, .. }) => {
                let tested = matches!(event, Event::Tested { .. });
                if tested && let Some(new) = device.pending.take() {
                    device.previous = device.current.replace(new);
                }
            }
            (Self::ConfirmsTwice, Decision::Same(None)) if committed && state == Some(JobState::Confirmed) => {
                let mut device = Box::new(before.clone());
                let Device { current, previous, .. } = device.as_mut();
                std::mem::swap(current, previous);
                *decision = Decision::Change { device, send: None };
            }
            (Self::IgnoresLateProof, _) if said && matches!(state, Some(JobState::TimedOut | JobState::Lost)) => {
                *decision = Decision::Same(None);
            }
            _ => {}
        }
    }

    /// What the controller revokes with a step.
    pub(crate) fn void(self, before: &Device, after: &Device) -> Option<Fingerprint> {
        let entered = |state| {
            let is = after.job.as_ref().is_some_and(|j| j.state == state);
            is && before.job.as_ref().is_none_or(|j| j.state != state)
        };
        let of = |credential: &Option<certwave_core::model::Credential>| credential.as_ref().map(|c| c.fingerprint);
        match self {
            Self::RevokesOldAtIssue if entered(JobState::Issued) => of(&after.current),
            Self::RevokesOldAtConfirm if entered(JobState::Confirmed) => of(&after.previous),
            Self::RevokesNewAtTimeout if entered(JobState::TimedOut) => of(&after.pending),
            _ => retire::refused(before, after),
        }
    }

    /// Before a retirement is decided on.
    pub(crate) fn seen(self, retirement: &Retirement, mut event: retire::Event) -> retire::Event {
        match (self, &mut event) {
            (Self::TakesAnyHello, retire::Event::Hello { echo, .. }) => *echo = retirement.nonce,
            (Self::AsksBeforeLoaded, retire::Event::Look { loaded, .. }) => *loaded = true,
            _ => {}
        }
        event
    }

    /// After a retirement was decided on.
    pub(crate) fn retired(self, decision: &mut retire::Decision) {
        let retire::Decision::Change { next, act, .. } = decision else {
            return;
        };
        if next.why == Some(Why::NoHello) {
            match self {
                Self::RevokesOnClock => *act = Some(Act::Revoke),
                Self::NeverReleases => *act = None,
                _ => {}
            }
        }
    }

    /// What the device does.
    pub(crate) fn effects(self, before: &Journal, effects: &mut Vec<Effect>) {
        match self {
            Self::KeyOverActive => {
                for effect in effects {
                    if let Effect::MakeKey { slot, .. } = effect {
                        *slot = slot.other();
                    }
                }
            }
            Self::KeyBeforeJournal => {
                if let Some(at) = effects.iter().position(|e| matches!(e, Effect::MakeKey { .. })) {
                    let key = effects.remove(at);
                    effects.insert(0, key);
                }
            }
            Self::ForgetsCommit => effects.retain(|effect| {
                let obeys = |j: &Journal| j.job.as_ref().is_some_and(|j| j.phase == Phase::Committed);
                !matches!(effect, Effect::Persist(journal) if obeys(journal) && !obeys(before))
            }),
            Self::LiesAboutRollback => {
                let tested = effects.iter().position(|e| {
                    matches!(
                        e,
                        Effect::Publish {
                            body: Body::Tested(_),
                            ..
                        }
                    )
                });
                if let (Some(at), Some(active)) = (tested, before.active)
                    && let Effect::Publish { about, .. } = effects[at]
                {
                    let body = Body::Status(Status {
                        step: Step::RolledBack,
                        code: Some(Code::TestFailed),
                        detail: None,
                        alert: None,
                    });
                    let signer = Signer::Slot(active);
                    effects.insert(at + 1, Effect::Publish { body, signer, about });
                }
            }
            _ => {}
        }
    }

    /// What the device finds when the power comes again.
    pub(crate) fn woken(self, journal: &mut Journal) {
        if self == Self::ForgetsOtherSlot {
            let other = journal.active.map_or(Slot::B, Slot::other);
            *journal.slots.get_mut(other) = None;
        }
    }

    /// What the device hears.
    pub(crate) fn arrives(self, mut payload: Payload, journal: &Journal) -> Payload {
        match self {
            Self::DeviceIgnoresSession => payload.session = PRESENT,
            Self::DeviceIgnoresEpoch => {
                let known = journal.job.as_ref().map(|j| j.epoch);
                payload.epoch = payload.epoch.max(known);
            }
            _ => {}
        }
        payload
    }
}
