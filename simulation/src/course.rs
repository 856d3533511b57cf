//! Whether a Rotation kept to its rollout, by what devices did: pure.
//!
//! What the operator knew when it let a wave begin is not seen from outside. It passes over devices that it takes for offline or for lost,
//! and serves them when they are heard again. So only those are held against it that it cannot have passed over.

use std::collections::{BTreeMap, BTreeSet};

use crate::rollout::{self, Rollout, Stages, WAVES};

/// A wave with offline devices is done only after so long without a change, milliseconds; `SETTLE` of the rollout's judge.
const SETTLE: i64 = 10_000;
const MINUTE: i64 = 60_000;

/// One Rotation.
pub struct Course {
    rollout: Rollout,
    devices: usize,
    /// What a device may need for a step, milliseconds.
    step: i64,
    waves: [Wave; WAVES],
    /// The last wave of which a device has begun.
    wave: usize,
    /// Waves that a person approved, from the first.
    approved: usize,
    /// Devices that a person has barred since it was created.
    excused: BTreeSet<usize>,
    /// When each job began, and how many were busy before.
    starts: Vec<(i64, usize)>,
    /// The operator's clock has jumped: whoever begins to lead counts what was sent within a minute by it.
    jumped: bool,
}

#[derive(Default)]
struct Wave {
    /// It had not begun before.
    since: Option<i64>,
    /// The first job of each device.
    first: BTreeMap<usize, Begun>,
    /// Devices that start from the new certificate.
    proven: BTreeSet<usize>,
    /// Those that went back by themselves since a person last answered.
    failed: BTreeSet<usize>,
}

/// A device's first job. The wave waits for it, if it began so soon that the device cannot have been taken for offline before, and for as
/// long as none of its deadlines can have passed.
#[derive(Clone, Copy)]
struct Begun {
    at: i64,
    soon: bool,
    /// When the device came to start from the new certificate.
    proven: Option<i64>,
}

impl Course {
    /// A Rotation of so many devices that is created at `now`; times are milliseconds.
    pub fn new(rollout: Rollout, devices: usize, step: i64, now: i64) -> Self {
        let mut waves: [Wave; WAVES] = Default::default();
        waves[0].since = Some(now);
        Self {
            rollout,
            devices,
            step,
            waves,
            wave: 0,
            approved: 0,
            excused: BTreeSet::new(),
            starts: Vec::new(),
            jumped: false,
        }
    }

    fn wave(&self, device: usize) -> usize {
        self.rollout.stages.map_or(0, |_| rollout::wave(device))
    }

    /// A device begins a job while these are busy, itself among them. What is wrong with that.
    pub fn begins(&mut self, device: usize, now: i64, busy: &BTreeSet<usize>) -> Vec<String> {
        let others = busy.iter().copied().filter(|other| *other != device).collect();
        let mut found = Vec::new();
        if !self.rollout.is_for(device) {
            found.push(format!("selection: d{device} began, which the Rotation is not for"));
        }
        found.extend(self.crowded(device, &others));
        found.extend(self.hasty(device, now, others.len()));
        let number = self.wave(device);
        if let Some(stages) = self.rollout.stages {
            let unready = (self.wave..number).filter_map(|before| self.unready(before, &stages, now, &others));
            found.extend(
                unready.map(|what| format!("waves: d{device} began as the first of wave {}, and {what}", number + 1)),
            );
        }
        self.wave = self.wave.max(number);
        let wave = &mut self.waves[number];
        wave.failed.remove(&device);
        // One that is tried again may have been taken for lost before.
        let again = wave.first.contains_key(&device);
        let begun = Begun {
            at: now,
            soon: !again && wave.since.is_some_and(|since| now - since < SETTLE),
            proven: None,
        };
        wave.first.insert(device, begun);
        found
    }

    fn crowded(&self, device: usize, others: &BTreeSet<usize>) -> Option<String> {
        let same = |other: &&usize| self.rollout.per_site && rollout::site(**other) == rollout::site(device);
        let other = others.iter().find(same)?;
        Some(format!(
            "sites: d{device} began while d{other} of the same site was busy"
        ))
    }

    /// Of the jobs that began within a minute some may have been sent before; those held slots since, which others then had not.
    fn hasty(&mut self, device: usize, now: i64, others: usize) -> Option<String> {
        let per_minute = self.rollout.per_minute.filter(|_| !self.jumped)?;
        self.starts.push((now, others));
        let within = self
            .starts
            .iter()
            .enumerate()
            .filter(|(_, (from, _))| now - from < MINUTE);
        let (count, allowed) = within
            .map(|(first, (_, busy))| {
                (
                    self.starts.len() - first,
                    per_minute + self.rollout.in_flight.saturating_sub(*busy),
                )
            })
            .find(|(count, allowed)| count > allowed)?;
        Some(format!(
            "rate: d{device} began as one of {count} within a minute, where {allowed} could"
        ))
    }

    /// Why no wave after this one should have begun.
    fn unready(&self, number: usize, stages: &Stages, now: i64, others: &BTreeSet<usize>) -> Option<String> {
        let wave = &self.waves[number];
        let known = |device: &usize| !self.excused.contains(device);
        if !(0..self.devices).any(|device| rollout::wave(device) == number && known(&device)) {
            return None;
        }
        let name = number + 1;
        if wave.proven.is_empty() {
            return Some(format!("nobody of wave {name} starts from the new certificate"));
        }
        if stages.approval && self.approved <= number {
            return Some(format!("nobody has approved wave {name}"));
        }
        if stages.strict.is_some()
            && let Some(failed) = wave.failed.iter().find(|device| known(device))
        {
            return Some(format!("d{failed} of wave {name} had failed"));
        }
        let awaited = || wave.first.iter().filter(|(device, begun)| begun.soon && known(device));
        if let Some((busy, _)) = awaited().find(|(device, begun)| begun.proven.is_none() && others.contains(device)) {
            return Some(format!("d{busy} of wave {name} was busy"));
        }
        let soak = i64::from(stages.soak) * 1000;
        let mut proven = awaited()
            .filter_map(|(device, begun)| Some((device, begun.proven.filter(|at| at - begun.at < self.step)?)));
        let (device, at) = proven.find(|(_, at)| now - at < soak)?;
        Some(format!(
            "d{device} of wave {name} was proven {} ms before, where {soak} were to pass",
            now - at
        ))
    }

    /// A device starts from the new certificate.
    pub fn proven(&mut self, device: usize, now: i64) {
        let number = self.wave(device);
        let wave = &mut self.waves[number];
        if let Some(begun) = wave.first.get_mut(&device) {
            begun.proven.get_or_insert(now);
        }
        wave.proven.insert(device);
        wave.failed.remove(&device);
        if let Some(next) = self.waves.get_mut(number + 1) {
            next.since.get_or_insert(now);
        }
    }

    /// A device went back by itself.
    pub fn failed(&mut self, device: usize) {
        let number = self.wave(device);
        self.waves[number].failed.insert(device);
    }

    /// A device was sent back to the certificate that it had.
    pub fn sent_back(&mut self, device: usize) {
        let number = self.wave(device);
        self.waves[number].proven.remove(&device);
        self.waves[number].first.remove(&device);
    }

    /// A person has barred a device: nobody waits for it.
    pub fn excuse(&mut self, device: usize) {
        self.excused.insert(device);
    }

    /// The operator's clock jumps.
    pub fn clock_jumps(&mut self) {
        self.jumped = true;
    }

    /// A person has approved so many waves.
    pub fn approve(&mut self, through: usize) {
        self.approved = self.approved.max(through);
    }

    /// A person has answered a breach while this wave was the present one: what failed until now is forgiven, and what was approved of this wave
    /// and later ones must be approved anew.
    pub fn forgive(&mut self, present: Option<usize>) {
        self.approved = present.map_or(self.approved, |wave| self.approved.min(wave));
        for wave in &mut self.waves {
            wave.failed.clear();
        }
    }
}
