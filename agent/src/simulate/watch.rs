//! What is seen of the simulated devices, and the hooks through which it is seen and their faults act.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certwave_protocol::code::Code;
use certwave_protocol::ids::{DeviceId, JobId};
use certwave_protocol::message::{Body, Progress, Slot, Step, Type};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::fault::{Fault, Vanishing};
use super::history::History;
use crate::disk::Fuse;
use crate::hooks::{Hooks, Leave};
use crate::journal::{Goal, Journal, PerSlot, Phase};
use crate::machine::{Credential, Effect, Failure, Link, State, Via};
use crate::mqtt::LinkError;
use crate::store::write_certificates;

/// A device as the report shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    /// The slot that it starts from.
    pub active: Option<Slot>,
    /// Connected under its own name.
    pub connected: bool,
    /// Its latest job.
    pub job: Option<SeenJob>,
    /// Rotations committed since the simulator started.
    pub rotations: u32,
    /// Its faults.
    pub faults: Vec<String>,
    /// Why it last could not connect.
    pub last_error: Option<String>,
    /// PEM of the leaves and intermediates in both slots.
    #[serde(skip)]
    pub pem: PerSlot<Option<(String, String)>>,
}

/// A device's latest job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenJob {
    /// Its id.
    pub id: JobId,
    /// How far it is.
    pub progress: Progress,
    /// Why it failed.
    pub code: Option<Code>,
    /// The TLS alert.
    pub alert: Option<String>,
}

/// All devices together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Devices that hold a committed certificate.
    pub enrolled: u64,
    /// Rotations committed.
    pub rotated: u64,
    /// Jobs given up after a trial.
    pub rolled_back: u64,
    /// Jobs rejected, failed or rolled back, by code.
    pub failures: BTreeMap<String, u64>,
}

/// What all devices share.
#[derive(Debug)]
pub struct Shared {
    totals: Mutex<Totals>,
    changes: AtomicU64,
    /// How many claims may be connected at once: they all hear each other's answers.
    claims: Arc<Semaphore>,
    /// When the next device may connect.
    pace: Arc<Pace>,
    /// What each of them does, where that is written down.
    history: Option<History>,
}

impl Shared {
    /// At most so many claims connected at once, and so many connections a second.
    pub fn new(claim_connections: usize, connect_rate: u32, history: Option<History>) -> Self {
        Self {
            totals: Mutex::default(),
            changes: AtomicU64::new(1),
            claims: Arc::new(Semaphore::new(claim_connections.max(1))),
            pace: Arc::new(Pace::new(connect_rate)),
            history,
        }
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        lock(&self.totals).clone()
    }

    /// Rises with every change that the report shows.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

/// Spaces connections evenly.
#[derive(Debug)]
struct Pace {
    start: Instant,
    gap_micros: u64,
    next: AtomicU64,
}

impl Pace {
    /// At most `rate` connections a second.
    fn new(rate: u32) -> Self {
        Self {
            start: Instant::now(),
            gap_micros: 1_000_000 / u64::from(rate.max(1)),
            next: AtomicU64::new(0),
        }
    }

    async fn wait(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let turn = |next: u64| Some(next.max(now).saturating_add(self.gap_micros));
        let previous = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn)
            .unwrap_or(now);
        tokio::time::sleep_until(self.start + Duration::from_micros(previous.max(now))).await;
    }
}

/// One simulated device's watch and faults.
pub struct Sim {
    id: DeviceId,
    faults: Vec<Fault>,
    fuse: Fuse,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    seen: Arc<Mutex<Seen>>,
    /// The job that the fuse was armed for.
    armed: Mutex<bool>,
}

/// Whoever panicked while holding it left nothing half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// A device with these faults.
    pub fn new(
        id: DeviceId,
        faults: Vec<Fault>,
        fuse: Fuse,
        stop: watch::Sender<bool>,
        shared: Arc<Shared>,
        seen: Arc<Mutex<Seen>>,
    ) -> Self {
        lock(&seen).faults = faults.iter().map(|f| format!("{f:?}")).collect();
        Self {
            id,
            faults,
            fuse,
            stop,
            shared,
            seen,
            armed: Mutex::new(false),
        }
    }

    /// Goes away for good, if that is a fault of its.
    fn vanish(&self, when: Vanishing) {
        if self.faults.contains(&Fault::Vanish(when)) {
            tracing::info!(device = %self.id, ?when, "vanishes");
            let _ = self.stop.send(true);
        }
    }

    fn count(&self, old: Option<&SeenJob>, new: Option<&SeenJob>, goal: Option<Goal>, seen: &mut Seen) {
        // What was so when the simulator started has been counted before.
        let (Some(old), Some(new)) = (old, new) else { return };
        if old == new {
            return;
        }
        let mut totals = lock(&self.shared.totals);
        match new.progress {
            Progress::Committed if matches!(goal, Some(Goal::Rotate { .. })) => {
                seen.rotations += 1;
                totals.rotated += 1;
            }
            Progress::RolledBack | Progress::Failed => {
                if new.progress == Progress::RolledBack {
                    totals.rolled_back += 1;
                }
                let code = new.code.unwrap_or(Code::Other);
                *totals.failures.entry(code.to_string()).or_default() += 1;
            }
            _ => {}
        }
    }
}

fn seen_job(state: &State) -> Option<SeenJob> {
    let view = state.journal().view(state.on_trial())?;
    let (code, alert) = match &state.journal().job.as_ref()?.phase {
        Phase::RolledBack { code, alert } => (Some(*code), alert.clone()),
        Phase::Failed { code } => (Some(*code), None),
        _ => (None, None),
    };
    Some(SeenJob {
        id: view.id,
        progress: view.progress,
        code,
        alert,
    })
}

fn rotating(journal: &Journal) -> bool {
    journal
        .job
        .as_ref()
        .is_some_and(|j| matches!(j.goal, Goal::Rotate { .. }))
}

impl Hooks for Sim {
    fn stepped(&self, state: &State, effects: &[Effect]) {
        let journal = state.journal();
        let mut seen = lock(&self.seen);
        for effect in effects {
            match effect {
                Effect::StoreCertificate { slot, leaf, chain, .. } => {
                    *seen.pem.get_mut(*slot) = Some((write_certificates([leaf]), write_certificates(chain)));
                    if rotating(journal) {
                        self.vanish(Vanishing::Stored);
                    }
                }
                Effect::Publish {
                    body: Body::Status(status),
                    ..
                } if status.step == Step::Rejected => {
                    let code = status.code.unwrap_or(Code::Other);
                    *lock(&self.shared.totals).failures.entry(code.to_string()).or_default() += 1;
                }
                _ => {}
            }
        }
        if rotating(journal) && !*lock(&self.armed) {
            for fault in &self.faults {
                if let Fault::PowerCut(after) = fault {
                    tracing::info!(device = %self.id, after, "power cut ahead");
                    self.fuse.arm(*after);
                }
            }
            *lock(&self.armed) = true;
        }
        if seen.active.is_none() && journal.active.is_some() {
            lock(&self.shared.totals).enrolled += 1;
            if self.faults.contains(&Fault::Offline) {
                let _ = self.stop.send(true);
            }
        }
        let connected = matches!(state.link(), Link::Up(via, _) if via.credential != Credential::Claim);
        let job = seen_job(state);
        if seen.active != journal.active || seen.connected != connected || seen.job != job {
            let old = seen.job.take();
            self.count(
                old.as_ref(),
                job.as_ref(),
                journal.job.as_ref().map(|j| j.goal),
                &mut seen,
            );
            seen.active = journal.active;
            seen.connected = connected;
            seen.job = job;
            if let Some(history) = &self.shared.history {
                history.note(&self.id, journal, &seen);
            }
            self.shared.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn link_failed(&self, error: &LinkError) {
        tracing::debug!(device = %self.id, %error, "link");
        lock(&self.seen).last_error = Some(error.reason.clone());
    }

    fn leave(&self, via: Via) -> Option<Leave> {
        let claims = (via.credential == Credential::Claim).then(|| Arc::clone(&self.shared.claims));
        let pace = Arc::clone(&self.shared.pace);
        Some(Box::pin(async move {
            let permit = match claims {
                Some(claims) => claims.acquire_owned().await.ok(),
                None => None,
            };
            pace.wait().await;
            permit
        }))
    }

    fn shut(&self, journal: &Journal, via: Via) -> Option<Failure> {
        if !via.trial || !rotating(journal) {
            return None;
        }
        self.faults.iter().find_map(|fault| match fault {
            Fault::FailTest(None) => Some(Failure::Unreachable),
            Fault::FailTest(Some(alert)) => Some(Failure::Refused(Some(alert.clone()))),
            _ => None,
        })
    }

    fn opens(&self, journal: &Journal, via: Via) -> Option<Slot> {
        let Goal::Rotate { slot: new, .. } = journal.job.as_ref()?.goal else {
            return None;
        };
        let mistaken = self.faults.contains(&Fault::OldDoor) && via.credential == Credential::Slot(new);
        mistaken.then_some(new.other())
    }

    fn copies(&self, journal: &Journal, body: &Body) -> usize {
        // Told to leave, any other device still finishes its sentence.
        if *self.stop.borrow() && self.faults.iter().any(|fault| matches!(fault, Fault::Vanish(_))) {
            return 0;
        }
        match body {
            Body::Status(status) if status.step == Step::Accepted && rotating(journal) => {
                self.vanish(Vanishing::Accepted);
            }
            Body::Tested(_) if rotating(journal) => self.vanish(Vanishing::Tested),
            _ => {}
        }
        if self.faults.contains(&Fault::NeverAnswer) && rotating(journal) && body.kind() != Type::Hello {
            return 0;
        }
        if self.faults.contains(&Fault::Duplicate) { 2 } else { 1 }
    }

    fn delay(&self, journal: &Journal) -> Duration {
        let slow = self.faults.iter().find_map(|fault| match fault {
            Fault::Slow(time) => Some(*time),
            _ => None,
        });
        slow.filter(|_| journal.active.is_some()).unwrap_or_default()
    }
}
