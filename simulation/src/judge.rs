//! Whether what always holds did hold, at each instant: by what devices did, what the broker was told and let in, and what was on
//! disks. The judge knows nothing of the operator's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use certwave_agent::journal::{Goal, Journal, Phase};
use certwave_protocol::ids::{Epoch, Fingerprint};
use certwave_protocol::message::Slot;

use crate::course::Course;
use crate::history::History;
use crate::os;

/// A CRL's issuer and partition.
pub type Scope = (String, String);

/// After so long in fair weather whoever had not heard of a hold hears of its end only, milliseconds.
const UNHEARD: i64 = 60_000;

/// So often everybody is looked at while devices go their ways, milliseconds.
const ROUND: i64 = 1000;

/// How patient the Fleet is, milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With a device that has accepted.
    pub answer: i64,
    /// With one that tries its certificate.
    pub trial: i64,
}

/// See the module.
pub struct Judge {
    inner: Mutex<Inner>,
    history: Arc<History>,
    patience: Patience,
    /// The ledger's tables: whose epoch is the present one.
    epochs: Mutex<Option<rusqlite::Connection>>,
}

#[derive(Default)]
struct Inner {
    limit: usize,
    /// When everybody was looked at.
    looked: i64,
    /// The slots of devices that have not ended their jobs.
    slots: BTreeMap<usize, Held>,
    /// Jobs that a person has ended by barring their devices, which may not know of it.
    lost: BTreeSet<(usize, u128)>,
    /// Jobs that were begun.
    begun: BTreeSet<(usize, u128)>,
    /// What each device was last seen to do.
    known: BTreeMap<usize, (Option<u128>, String)>,
    /// Certificates by their hash, numbered in the order in which they were seen.
    names: BTreeMap<Fingerprint, String>,
    serials: BTreeMap<(String, String), Fingerprint>,
    /// Issuer and serial number of each certificate that a device was given.
    certificates: BTreeMap<Fingerprint, (String, String)>,
    /// What each device holds: certificates with their ends, Unix seconds.
    held: BTreeMap<usize, Vec<(Fingerprint, i64)>>,
    numbers: BTreeMap<Scope, u64>,
    /// What the broker goes by.
    revoked: BTreeMap<Scope, BTreeSet<String>>,
    /// Devices that were let in again and may still be on the broker's lists, and when that was.
    released: BTreeMap<usize, i64>,
    /// Devices that a person revoked or holds.
    barred: BTreeSet<usize>,
    /// Those of them that could not enter at some time since.
    shut_out: BTreeSet<usize>,
    /// Since when the weather is fair, if it is.
    fair: Option<i64>,
    /// The present Rotation.
    course: Option<Course>,
    /// Each device's last job before it.
    before: BTreeMap<usize, Option<u128>>,
    peak: usize,
    jobs: usize,
}

/// A device's slot.
#[derive(Clone, Copy)]
struct Held {
    job: u128,
    /// From when it has the new certificate: what it does with that gives it no more time.
    trial: bool,
    /// It may be somebody else's then.
    until: i64,
}

impl Judge {
    /// Judges a fleet that is as patient as this.
    pub fn new(history: Arc<History>, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            history,
            patience,
            epochs: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many devices may be busy at once.
    pub fn allow(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// A person has said that a device is to be kept out, or let in again.
    pub fn bar(&self, device: usize, barred: bool) {
        let mut inner = self.lock();
        if barred {
            inner.barred.insert(device);
            inner.shut_out.remove(&device);
            inner.slots.remove(&device);
            let job = inner.known.get(&device).and_then(|(job, _)| *job);
            inner.lost.extend(job.map(|job| (device, job)));
            if let Some(course) = inner.course.as_mut() {
                course.excuse(device);
            }
        } else {
            inner.barred.remove(&device);
        }
    }

    /// The next Rotation is created.
    pub fn follow(&self, mut course: Course) {
        let mut inner = self.lock();
        inner.barred.iter().for_each(|device| course.excuse(*device));
        inner.course = Some(course);
        inner.before = inner.known.iter().map(|(device, (job, _))| (*device, *job)).collect();
    }

    /// The operator's clock jumps.
    pub fn clock_jumps(&self) {
        self.lock().course.iter_mut().for_each(Course::clock_jumps);
    }

    /// A person has approved so many waves of the present Rotation.
    pub fn approve(&self, through: usize) {
        self.lock().course.iter_mut().for_each(|course| course.approve(through));
    }

    /// A person has answered a breach of the present Rotation, in this wave, from 0, where that is known.
    pub fn forgive(&self, wave: Option<usize>) {
        self.lock().course.iter_mut().for_each(|course| course.forgive(wave));
    }

    /// A person has let a device in again: soon the broker's lists say so.
    pub fn release(&self, device: usize) {
        self.lock().released.insert(device, os::elapsed_ms());
    }

    /// Nothing goes wrong any more.
    pub fn clears_up(&self) {
        self.lock().fair = Some(os::elapsed_ms());
    }

    /// Whether somebody whom a person has let in again is still on the broker's lists, or may yet come onto them: what was taken back
    /// at once perhaps nobody has heard of.
    pub fn awaits_release(&self) -> bool {
        let mut inner = self.lock();
        let now = os::elapsed_ms();
        let settled = inner.fair.is_some_and(|fair| now - fair > UNHEARD);
        inner.welcome(|heard, released| heard || settled && now - released > UNHEARD);
        !inner.released.is_empty()
    }

    /// Whether a person has barred it.
    pub fn is_barred(&self, device: usize) -> bool {
        self.lock().barred.contains(&device)
    }

    /// The most devices that were busy at once, and the jobs that were begun.
    pub fn peak(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.peak, inner.jobs)
    }

    /// What a certificate is called: hashes differ from run to run.
    pub fn name(&self, leaf: &Fingerprint) -> String {
        let mut inner = self.lock();
        let next = inner.names.len() + 1;
        inner.names.entry(*leaf).or_insert_with(|| format!("c{next}")).clone()
    }

    /// A certificate was seen: nobody else may have its serial number.
    pub fn saw(&self, issuer: &str, serial: &str, leaf: Fingerprint) {
        let mut inner = self.lock();
        let own = (issuer.to_owned(), serial.to_owned());
        let before = inner.serials.insert(own.clone(), leaf);
        inner.certificates.insert(leaf, own);
        drop(inner);
        if before.is_some_and(|before| before != leaf) {
            self.history.breach("two certificates have one serial number");
        }
    }

    /// A device has taken a step.
    pub fn stepped(&self, device: usize, journal: &Journal, on_trial: bool) {
        let now = os::elapsed_ms();
        let job = journal.job.as_ref();
        let id = job.map(|job| job.id.as_u128());
        let progress = match job.map(|job| &job.phase) {
            None => "no job".to_owned(),
            Some(Phase::RolledBack { code, .. }) => format!("rolled back, {code}"),
            Some(Phase::Failed { code }) => format!("failed, {code}"),
            Some(Phase::Stored) if on_trial => "trial".to_owned(),
            Some(phase) => format!("{phase:?}").to_lowercase(),
        };
        let start = journal.active.and_then(|slot| journal.held(slot)).map(|held| held.leaf);
        let start = start.map_or_else(|| "-".to_owned(), |leaf| self.name(&leaf));
        let told = format!("{progress}, starts from {start}");
        let mut inner = self.lock();
        let slots = [Slot::A, Slot::B].into_iter().filter_map(|slot| journal.held(slot));
        let held: Vec<_> = slots.map(|held| (held.leaf, held.not_after)).collect();
        let changed = inner.held.get(&device) != Some(&held);
        if changed {
            inner.held.insert(device, held);
        }
        if inner.known.get(&device) == Some(&(id, told.clone())) {
            drop(inner);
            if changed {
                self.can_enter_still(device, now);
            }
            return;
        }
        let another = inner.known.get(&device).is_none_or(|(before, _)| *before != id);
        inner.known.insert(device, (id, told.clone()));
        // Whoever a person has barred has lost its job, too.
        let lost = inner.barred.contains(&device) || id.is_some_and(|id| inner.lost.contains(&(device, id)));
        let counts = !lost && job.is_some_and(|job| !matches!(job.goal, Goal::Enrol { .. }));
        let trial = match job.map(|job| &job.phase) {
            Some(Phase::Accepted) if counts => Some(false),
            Some(Phase::Stored | Phase::Tested | Phase::TrialOver) if counts => Some(true),
            _ => None,
        };
        let mut breaches = Vec::new();
        let of_the_course = inner.before.get(&device) != Some(&id);
        if let (Some(course), Some(job), true) = (inner.course.as_mut(), job, of_the_course) {
            match (&job.goal, &job.phase) {
                (Goal::Rotate { .. }, Phase::Committed) => course.proven(device, now),
                (Goal::Rotate { .. }, Phase::RolledBack { .. }) => course.failed(device),
                (Goal::Rollback { .. }, Phase::Committed) => course.sent_back(device),
                _ => {}
            }
        }
        match (trial, id) {
            (Some(trial), Some(id)) => {
                let before = inner.slots.get(&device).copied();
                if before.is_none_or(|before| before.job != id || before.trial != trial) {
                    let patience = if trial {
                        self.patience.trial
                    } else {
                        self.patience.answer
                    };
                    let until = now + patience;
                    inner.slots.insert(device, Held { job: id, trial, until });
                }
                let busy = inner.busy(now);
                inner.peak = inner.peak.max(busy.len());
                if inner.begun.insert((device, id)) {
                    inner.jobs += 1;
                    if busy.len() > inner.limit {
                        let all: Vec<_> = busy.iter().map(|device| format!("d{device}")).collect();
                        breaches.push(format!(
                            "in flight: d{device} began as one of {}, and {} are allowed: {}",
                            busy.len(),
                            inner.limit,
                            all.join(" ")
                        ));
                    }
                    breaches.extend(inner.begins(device, job.map(|job| &job.goal), now, &busy));
                }
            }
            _ => drop(inner.slots.remove(&device)),
        }
        drop(inner);
        let new = if another { "another job: " } else { "" };
        self.history.say(format!("d{device} {new}{told}"));
        for breach in breaches {
            self.history.breach(breach);
        }
        self.can_enter_still(device, now);
    }

    /// From now on the judge knows whose epoch is the present one.
    pub fn watch(&self, ledger: rusqlite::Connection) {
        *self.epochs.lock().unwrap_or_else(PoisonError::into_inner) = Some(ledger);
    }

    /// Somebody said something to a device in the name of an epoch.
    pub fn said(&self, epoch: Option<Epoch>, kind: &str) {
        let Some(epoch) = epoch else { return };
        let ledger = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let present = ledger.as_ref().and_then(|ledger| {
            let mut last = ledger
                .prepare_cached("SELECT max(epoch) FROM epochs WHERE part NOT IN ('', '*')")
                .ok()?;
            last.query_row([], |row| row.get::<_, Option<i64>>(0)).ok()?
        });
        drop(ledger);
        if present.is_some_and(|present| i64::try_from(epoch).is_ok_and(|epoch| epoch < present)) {
            self.history.breach(format!("a deposed leader said {kind}"));
        }
    }

    /// The broker goes by another CRL.
    pub fn loaded(&self, scope: &Scope, number: u64, revoked: BTreeSet<String>) {
        let mut inner = self.lock();
        let before = inner.numbers.insert(scope.clone(), number);
        let lines = revoked.len();
        inner.revoked.insert(scope.clone(), revoked);
        drop(inner);
        if before.is_none_or(|before| before != number) {
            self.history
                .say(format!("the broker goes by another CRL of {}, {lines} lines", scope.1));
        }
        if before.is_some_and(|before| before > number) {
            self.history
                .breach(format!("the number of the CRL of {} fell", scope.1));
        }
        self.can_enter(|_| true);
    }

    /// The broker let somebody in.
    pub fn let_in(&self, user: &str, issuer: &str, serial: &str) {
        let inner = self.lock();
        let listed = |(scope, serials): (&Scope, &BTreeSet<String>)| scope.0 == issuer && serials.contains(serial);
        let out = inner.revoked.iter().any(listed);
        drop(inner);
        if out {
            self.history.breach(format!(
                "{user} was let in with a certificate that is revoked or on hold"
            ));
        }
    }

    /// A device has changed what it holds or does. Others may have been shut out by the time alone.
    fn can_enter_still(&self, device: usize, now: i64) {
        let mut inner = self.lock();
        let everybody = now - inner.looked >= ROUND;
        if everybody {
            inner.looked = now;
        }
        drop(inner);
        self.can_enter(|other| everybody || other == device);
    }

    /// Each of these devices must hold a certificate that opens the door, unless a person has barred it.
    fn can_enter(&self, of: impl Fn(usize) -> bool) {
        let mut inner = self.lock();
        inner.welcome(|heard, _| heard);
        let all = inner.held.keys().copied();
        let looked_at = all.filter(|device| of(*device) && !inner.barred.contains(device));
        let shut_out: Vec<usize> = looked_at.filter(|device| !inner.can_enter(*device)).collect();
        drop(inner);
        for device in shut_out {
            self.history
                .breach(format!("d{device} holds nothing that the broker accepts"));
        }
    }
}

impl Inner {
    /// Who holds a slot.
    fn busy(&self, now: i64) -> BTreeSet<usize> {
        let held = self.slots.iter().filter(|(_, held)| held.until > now);
        held.map(|(device, _)| *device).collect()
    }

    /// What is wrong with a job that a device has begun.
    fn begins(&mut self, device: usize, goal: Option<&Goal>, now: i64, busy: &BTreeSet<usize>) -> Vec<String> {
        match (self.course.as_mut(), goal) {
            (Some(course), Some(Goal::Rotate { .. })) => course.begins(device, now, busy),
            _ => Vec::new(),
        }
    }

    /// Whoever was released is like any other once it can enter, if `due` says so of whether the broker had heard that it was barred, and of
    /// when it was released.
    fn welcome(&mut self, due: impl Fn(bool, i64) -> bool) {
        let shut: Vec<usize> = self
            .barred
            .iter()
            .copied()
            .filter(|device| !self.can_enter(*device))
            .collect();
        self.shut_out.extend(shut);
        let released = self.released.iter();
        let due = released.filter(|(device, at)| due(self.shut_out.contains(device), **at));
        let free = due.map(|(device, _)| *device).filter(|device| self.can_enter(*device));
        for device in free.collect::<Vec<_>>() {
            self.released.remove(&device);
            self.barred.remove(&device);
        }
    }

    /// Whether a device that holds certificates has one that opens the door.
    fn can_enter(&self, device: usize) -> bool {
        let now = os::now_ms() / 1000;
        let opens = |(leaf, not_after): &(Fingerprint, i64)| {
            let Some((issuer, serial)) = self.certificates.get(leaf) else {
                return true;
            };
            let listed = |(scope, serials): (&Scope, &BTreeSet<String>)| scope.0 == *issuer && serials.contains(serial);
            *not_after > now && !self.revoked.iter().any(listed)
        };
        let held = self.held.get(&device).map(Vec::as_slice).unwrap_or_default();
        held.is_empty() || held.iter().any(opens)
    }
}
