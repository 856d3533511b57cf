//! What the ledger should hold of one Rotation.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use certwave_core::model::{Identity, JobKind, JobState, Millis};
use certwave_core::rollout::run::WaveCounts;
use certwave_ledger::{DeviceRow, DueQuery, Member, MemberOutcome, MemberQuery, NewMember};

use super::{DEVICES, WAVES};
use crate::fixtures::*;

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) kind: u8,
    pub(super) ours: bool,
    pub(super) state: JobState,
    pub(super) since: Millis,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Certificate {
    /// In the order in which they were issued.
    pub(super) number: u64,
    /// Unix seconds.
    pub(super) not_after: i64,
    pub(super) confirmed_at: Millis,
}

/// A device as far as Rotations care.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) declared: bool,
    pub(super) pumps: bool,
    pub(super) job: Option<Job>,
    pub(super) current: Certificate,
    pub(super) previous: Option<Certificate>,
    pub(super) not_before: Option<Millis>,
    pub(super) last_seen: Option<Millis>,
}

impl Device {
    pub(super) fn open(&self) -> bool {
        self.job.as_ref().is_some_and(|j| !j.state.ended())
    }

    pub(super) fn ours(&self) -> Option<&Job> {
        self.job.as_ref().filter(|j| j.ours)
    }

    pub(super) fn home(&self) -> bool {
        self.declared && self.pumps
    }

    /// It starts from what it had when it became a member, or went back by itself.
    pub(super) fn is_back(&self, place: &Place) -> bool {
        self.current.number <= place.held || self.went_back()
    }

    /// Its previous certificate is the newer one: nobody sends it there.
    pub(super) fn went_back(&self) -> bool {
        self.previous
            .is_some_and(|previous| previous.number > self.current.number)
    }

    /// Its last job went wrong, and if it vanished, it has not been heard since.
    pub(super) fn failed(&self) -> bool {
        let Some(job) = &self.job else { return false };
        match job.state {
            JobState::Rejected | JobState::Failed | JobState::RolledBack => true,
            JobState::TimedOut | JobState::Lost => self.last_seen.is_none_or(|t| t <= job.since),
            _ => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) new: NewMember,
    pub(super) outcome: MemberOutcome,
    pub(super) job: Option<u64>,
    /// The device's certificate when it became a member.
    pub(super) held: u64,
}

pub(super) struct Model {
    pub(super) now: Millis,
    pub(super) ended: bool,
    pub(super) devices: Vec<Device>,
    pub(super) rows: Vec<DeviceRow>,
    pub(super) members: BTreeMap<u32, Place>,
    pub(super) changed: [Millis; WAVES as usize],
    pub(super) next: u64,
}

pub(super) const ROLLBACK: u8 = 3;

pub(super) fn kind(kind: u8) -> JobKind {
    match kind {
        0 | 1 => JobKind::Rotate,
        2 => JobKind::Trust(hash("bundle", 1)),
        _ => JobKind::Rollback,
    }
}

impl Model {
    pub(super) fn set(&mut self, n: u32, outcome: MemberOutcome) {
        let now = self.now;
        if let Some(place) = self.members.get_mut(&n)
            && place.outcome != outcome
        {
            place.outcome = outcome;
            let changed = &mut self.changed[place.new.wave as usize];
            *changed = now.max(*changed);
        }
    }

    pub(super) fn outcome(&self, n: u32) -> Option<MemberOutcome> {
        self.members.get(&n).map(|p| p.outcome)
    }

    pub(super) fn member(&self, n: u32) -> Option<Member> {
        let place = self.members.get(&n)?;
        Some(Member {
            identity: identity(n),
            wave: place.new.wave,
            ordinal: place.new.ordinal,
            group: place.new.group.clone(),
            windows: place.new.windows,
            not_after: self.devices[n as usize].current.not_after,
            outcome: place.outcome,
        })
    }

    pub(super) fn join(&mut self, n: u32, new: NewMember) {
        let d = &self.devices[n as usize];
        let alive = d.home() && d.current.not_after > self.now / 1000;
        let outcome = if alive {
            MemberOutcome::Planned
        } else {
            MemberOutcome::Skipped
        };
        let changed = &mut self.changed[new.wave as usize];
        if let Entry::Vacant(entry) = self.members.entry(n) {
            *changed = self.now.max(*changed);
            entry.insert(Place {
                new,
                outcome,
                job: None,
                held: d.current.number,
            });
        }
    }

    /// The device leaves the fleet.
    pub(super) fn leave(&mut self, n: u32) {
        match self.outcome(n) {
            Some(MemberOutcome::Planned) => self.set(n, MemberOutcome::Skipped),
            Some(MemberOutcome::Reverting) if !self.devices[n as usize].open() => {
                self.set(n, MemberOutcome::Unreverted);
            }
            _ => {}
        }
    }

    /// The device's job is a new one, or has come to another state.
    pub(super) fn job(&mut self, n: u32, job: &Job, new: bool, in_line: bool) {
        use MemberOutcome as M;
        let before = self.devices[n as usize].job.clone();
        if new {
            if self.outcome(n) == Some(M::Running) && before.is_some_and(|b| b.ours) {
                self.set(n, M::Skipped);
            }
            if self.outcome(n) == Some(M::Reverting) && !(job.ours && job.kind == ROLLBACK) {
                self.set(n, M::Unreverted);
            }
        }
        let Some(place) = self.members.get(&n).filter(|_| job.ours) else {
            return;
        };
        // Its way back was called off.
        if place.outcome == M::Confirmed && job.kind == ROLLBACK && job.state == JobState::Cancelled {
            return;
        }
        let silent = matches!(job.state, JobState::Queued | JobState::Sent | JobState::Cancelled);
        if matches!(place.outcome, M::TimedOut | M::Lost) && place.job != Some(job.id) && silent {
            return;
        }
        let over = self.ended || !self.devices[n as usize].home();
        let again = in_line || job.kind == 2 && job.state == JobState::Confirmed;
        let outcome = if job.kind == ROLLBACK {
            match job.state {
                _ if in_line => {
                    if over {
                        M::Unreverted
                    } else {
                        M::Reverting
                    }
                }
                JobState::Confirmed => M::Reverted,
                state if state.ended() => M::Unreverted,
                _ => M::Reverting,
            }
        } else if again {
            if over { M::Skipped } else { M::Planned }
        } else {
            match job.state {
                JobState::Confirmed => M::Confirmed,
                JobState::Rejected => M::Rejected,
                JobState::Failed => M::Failed,
                JobState::TimedOut => M::TimedOut,
                JobState::RolledBack => M::RolledBack,
                JobState::Cancelled => M::Skipped,
                JobState::Lost => M::Lost,
                _ => M::Running,
            }
        };
        self.set(n, outcome);
        if let Some(place) = self.members.get_mut(&n) {
            place.job = Some(job.id);
        }
    }

    pub(super) fn each(&mut self, mut outcome: impl FnMut(&Device, &Place) -> Option<MemberOutcome>) {
        for n in 0..DEVICES {
            let to = self.members.get(&n).and_then(|p| outcome(&self.devices[n as usize], p));
            if let Some(to) = to {
                self.set(n, to);
            }
        }
    }

    /// Nobody whose turn comes again by a person's word waits for the end of a pause.
    pub(super) fn hurry(&mut self, through_wave: u32) {
        for (n, place) in &self.members {
            let failed = matches!(
                place.outcome,
                MemberOutcome::Failed | MemberOutcome::Rejected | MemberOutcome::RolledBack
            );
            let d = &mut self.devices[*n as usize];
            if failed && place.new.wave <= through_wave && d.home() && !d.open() {
                d.not_before = None;
            }
        }
    }

    pub(super) fn counts(&self) -> Vec<WaveCounts> {
        let mut waves = vec![WaveCounts::default(); WAVES as usize];
        for (wave, changed) in waves.iter_mut().zip(self.changed) {
            wave.changed = changed;
        }
        for (n, place) in &self.members {
            let w = &mut waves[place.new.wave as usize];
            let job = self.devices[*n as usize].job.as_ref();
            let waits = job.is_some_and(|j| j.state == JobState::Queued);
            let waits_for_us = waits && job.is_some_and(|j| j.ours);
            w.members += 1;
            *match place.outcome {
                MemberOutcome::Planned | MemberOutcome::Running if waits => &mut w.offline,
                MemberOutcome::Reverting if waits_for_us => &mut w.offline,
                MemberOutcome::Planned => &mut w.planned,
                MemberOutcome::Running => &mut w.in_flight,
                MemberOutcome::Confirmed => &mut w.confirmed,
                MemberOutcome::Rejected => &mut w.rejected,
                MemberOutcome::Failed => &mut w.failed,
                MemberOutcome::TimedOut => &mut w.timed_out,
                MemberOutcome::RolledBack => &mut w.rolled_back,
                MemberOutcome::Lost => &mut w.lost,
                MemberOutcome::Skipped => &mut w.skipped,
                MemberOutcome::Reverting => &mut w.reverting,
                MemberOutcome::Reverted => &mut w.reverted,
                MemberOutcome::Unreverted => &mut w.unreverted,
                MemberOutcome::ProbationFailed => &mut w.probation_failed,
            } += 1;
        }
        waves
    }

    /// The one heard last of those whose turn would come later moves into the wave.
    pub(super) fn substitute(&mut self, wave: u32) {
        let later = self.members.iter().filter(|(n, p)| {
            let d = &self.devices[**n as usize];
            p.outcome == MemberOutcome::Planned
                && p.new.wave > wave
                && !d.open()
                && d.current.not_after > self.now / 1000
        });
        let found = later.min_by_key(|(n, p)| {
            let heard = Reverse(self.devices[**n as usize].last_seen);
            (heard, p.new.wave, p.new.ordinal)
        });
        let Some((n, _)) = found else { return };
        let n = *n;
        if let Some(place) = self.members.get_mut(&n) {
            for wave in [place.new.wave, wave] {
                let changed = &mut self.changed[wave as usize];
                *changed = self.now.max(*changed);
            }
            place.new.wave = wave;
        }
    }

    /// Devices that a Rotation could take.
    pub(super) fn candidates(&self) -> Vec<u32> {
        let alive = |n: &u32| {
            let d = &self.devices[*n as usize];
            d.home() && d.current.not_after > self.now / 1000
        };
        (0..DEVICES).filter(alive).collect()
    }

    pub(super) fn due(&self, q: &DueQuery) -> Vec<Identity> {
        let mut due: Vec<_> = self
            .candidates()
            .into_iter()
            .map(|n| (&self.devices[n as usize], n))
            .filter(|(d, _)| !d.open() && d.not_before.is_none_or(|t| t <= q.now))
            .filter(|(d, _)| {
                d.current.not_after < q.expires_before_s && (d.current.not_after < q.failed_before_s || !d.failed())
            })
            .map(|(d, n)| (d.current.not_after, n))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, n)| identity(n)).collect()
    }

    pub(super) fn waiting(&self, q: &MemberQuery) -> Vec<Member> {
        let mut waiting: Vec<_> = (0..DEVICES)
            .filter(|n| {
                let d = &self.devices[*n as usize];
                d.declared && !d.open() && d.not_before.is_none_or(|t| t <= q.now) && d.current.not_after > q.now / 1000
            })
            .filter_map(|n| self.member(n))
            .filter(|m| m.outcome == MemberOutcome::Planned && m.wave <= q.through_wave)
            .filter(|m| (m.wave, m.ordinal) >= q.from)
            .filter(|m| !q.full_groups.contains(&m.group))
            .filter(|m| {
                let near = q.override_before_s.is_some_and(|before| m.not_after < before);
                q.windows == u64::MAX || m.windows & q.windows != 0 || near
            })
            .collect();
        waiting.sort_by_key(|m| (m.wave, m.ordinal));
        waiting.truncate(q.limit as usize);
        waiting
    }

    pub(super) fn groups_in_use(&self) -> Vec<(String, u32)> {
        let mut groups = BTreeMap::new();
        for (n, place) in &self.members {
            let job = self.devices[*n as usize].ours();
            if place.outcome == MemberOutcome::TimedOut || job.is_some_and(|j| j.state.in_flight()) {
                *groups.entry(place.new.group.clone()).or_default() += 1;
            }
        }
        groups.into_iter().collect()
    }

    pub(super) fn left(&self) -> Vec<u32> {
        let queued = |n: u32| {
            self.devices[n as usize]
                .job
                .as_ref()
                .is_some_and(|j| j.state == JobState::Queued)
        };
        let left = self.members.iter().filter(|(n, p)| match p.outcome {
            MemberOutcome::Planned => true,
            MemberOutcome::Running => queued(**n),
            _ => false,
        });
        left.map(|(n, _)| *n).collect()
    }
}
