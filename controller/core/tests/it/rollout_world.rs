//! A fleet, a ledger and a scheduler in memory, around the pure parts: what the controller does with them, without the world.
//!
//! Real time only goes forward; the wall clock that decisions are given may jump. What must hold at every step is asserted
//! where it could break: when a device is started, when a wave begins, when a breach is seen, whenever a run is judged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use certwave_core::model::Millis;
use certwave_core::rollout::admit::{Doors, Rate, Steady, Waiting as Candidate, choose, per_minute, room};
use certwave_core::rollout::judge::{
    Action, Control, Gates, Judgement, Note, Phase, SETTLE, Seen, Waiting, Wish, breached, judge,
};
use certwave_core::rollout::plan::{Fit, Place, join, plan_fitting};
use certwave_core::rollout::run::{Plan, Run, WaveCounts};
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::{Limits, Strategy};
use certwave_core::rollout::window::Calendar;

use crate::rollout_fleets::{Fleet, START};

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;

/// What a device does with its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Rotates.
    Good,
    /// Fails so many attempts, then rotates.
    Fails(u8),
    /// Refuses.
    Rejects,
    /// Goes back by itself.
    GoesBack,
    /// Vanishes after it accepted; is heard again after this time, if at all, and then rotates.
    Vanishes(Option<Millis>),
    /// Connected, but does not answer its first offers.
    Deaf(u8),
}

/// What happens from outside, at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// A person's wish.
    Wish(u8),
    /// A person approves through this wave.
    Approve(u32),
    /// A person approves a plan that is not this one.
    ApproveOther,
    /// A person goes on after a breach.
    Resume,
    /// A person tries the failed again.
    Retry,
    /// Our own side fails, or works again.
    Fault(bool),
    /// Another Rotation has precedence, or no more.
    Preempt(bool),
    /// What the gates say: 0 well, 1 pending, 2 unknown, 3 bad.
    Gate(u8),
    /// The controller starts anew.
    Restart,
    /// The wall clock jumps by so much.
    Jump(Millis),
    /// So many devices join.
    Join(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In line; its job is not made yet.
    Planned,
    /// Its job waits for it.
    Queued,
    Sent,
    Accepted,
    Confirmed,
    Failed,
    Rejected,
    RolledBack,
    TimedOut,
    Lost,
    Reverting,
    Reverted,
    Unreverted,
}

#[derive(Debug, Clone)]
struct Member {
    wave: u32,
    ordinal: u32,
    site: u32,
    windows: u64,
    /// Seconds.
    not_after: i64,
    state: State,
    fate: Fate,
    online: bool,
    attempts: u8,
    /// Which job an event is about.
    job: u32,
    /// True while a job of this device is on its way: the one at most.
    busy: bool,
    /// Wall clock.
    confirmed: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Online(usize),
    /// A pause before a retry is over.
    Wake(usize, u32),
    Accept(usize, u32),
    /// The device has not answered.
    Postpone(usize, u32),
    End(usize, u32),
    GoneForGood(usize, u32),
    Heard(usize, u32),
    Back(usize, u32),
    Outside(Deed),
}

/// How much is recorded and checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Events within this time are judged together.
    pub(crate) quantum: Millis,
    /// Whether the clock may jump: what is measured by it is not checked then.
    pub(crate) jumps: bool,
}

pub(crate) struct World {
    pub(crate) strategy: Strategy,
    pub(crate) plan: Plan,
    pub(crate) run: Run,
    pub(crate) counts: Vec<WaveCounts>,
    /// The last word.
    pub(crate) last: Option<Judgement>,
    pub(crate) notes: Vec<(Millis, Note)>,
    pub(crate) starts: u64,
    pub(crate) judgements: u64,
    calendar: Calendar,
    members: Vec<Member>,
    events: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    sequence: u64,
    /// Devices that could be started, by wave and turn, for each mask of windows.
    line: BTreeMap<u64, BTreeSet<(u32, u32, usize)>>,
    /// The same by the end of their certificates.
    by_end: BTreeSet<(i64, usize)>,
    reverting: BTreeSet<usize>,
    unavailable: BTreeMap<String, u32>,
    sites: Vec<String>,
    in_flight: u32,
    rate: Rate,
    sent: VecDeque<(Millis, u32)>,
    real: Millis,
    offset: Millis,
    pace: Pace,
    control: Person,
    gate: u8,
    fault: bool,
    preempted: bool,
    /// What was in flight when the breach that stands was seen, and failures by then.
    at_breach: Option<(u32, u32)>,
    /// When a member of a wave changed last, in real time.
    changed: Vec<Millis>,
}

#[derive(Debug, Default)]
struct Person {
    wish: u8,
    approved: u32,
    other_plan: bool,
    resume: u32,
    retry: u32,
}

impl World {
    pub(crate) fn new(
        strategy: Strategy,
        fleet: &Fleet,
        fates: impl Fn(usize) -> (Fate, Option<Millis>),
        pace: Pace,
    ) -> Self {
        let (plan, places) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        let calendar = Calendar::compile(&strategy.windows).unwrap();
        let real = START * 1000;
        let waves = plan.waves.len();
        let mut world = Self {
            run: Run {
                wave_since: real,
                ..Run::default()
            },
            counts: vec![WaveCounts::default(); waves],
            last: None,
            notes: Vec::new(),
            starts: 0,
            judgements: 0,
            calendar,
            members: Vec::with_capacity(places.len()),
            events: BinaryHeap::new(),
            sequence: 0,
            line: BTreeMap::new(),
            by_end: BTreeSet::new(),
            reverting: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            sites: Vec::new(),
            in_flight: 0,
            rate: Rate::new(),
            sent: VecDeque::new(),
            real,
            offset: 0,
            pace,
            control: Person::default(),
            gate: 0,
            fault: false,
            preempted: false,
            at_breach: None,
            changed: vec![real; waves],
            strategy,
            plan,
        };
        world.enlist(fleet, &places, fates);
        world
    }

    pub(crate) fn at(&mut self, after: Millis, deed: Deed) {
        self.schedule(after, Event::Outside(deed));
    }

    /// Lets time pass until nothing is left that could happen, the run has ended, or `until` has passed since the start.
    pub(crate) fn live(&mut self, until: Millis) {
        let end = START * 1000 + until;
        self.settle();
        while self.run.ended.is_none() || !self.events.is_empty() {
            let Some(next) = self.next_time().filter(|next| *next <= end) else {
                break;
            };
            assert!(next >= self.real, "time goes forward");
            self.real = next;
            while let Some(Reverse((at, _, _))) = self.events.peek() {
                if *at > next + self.pace.quantum - 1 {
                    break;
                }
                let Some(Reverse((at, _, event))) = self.events.pop() else {
                    break;
                };
                self.real = self.real.max(at);
                self.happen(event);
                if self.pace.quantum == 1 {
                    self.settle();
                }
            }
            self.settle();
        }
    }

    /// Time since the start, for messages and expectations.
    pub(crate) fn elapsed(&self) -> Millis {
        self.real - START * 1000
    }

    pub(crate) fn total(&self, of: impl Fn(&WaveCounts) -> u32) -> u32 {
        self.counts.iter().map(of).sum()
    }

    /// What is left to come, as the ledger tells the forecast.
    pub(crate) fn remaining(&self) -> Vec<(i64, u32)> {
        let mut ends = BTreeMap::new();
        for member in &self.members {
            if matches!(member.state, State::Planned | State::Queued) {
                *ends.entry(member.not_after.div_euclid(3600) * 3600).or_default() += 1;
            }
        }
        ends.into_iter().collect()
    }

    /// After everything that could happen has happened: over, or waiting for something with a name that explains it.
    pub(crate) fn assert_over_or_waits(&self) {
        let last = self.last.as_ref().unwrap();
        if self.run.ended.is_some() {
            return;
        }
        let waiting = last
            .waiting
            .as_ref()
            .unwrap_or_else(|| panic!("{:?} waits for nothing", last.phase));
        let begun =
            |of: fn(&WaveCounts) -> u32| -> u32 { self.counts.iter().take(self.run.wave as usize + 1).map(of).sum() };
        match waiting {
            Waiting::Devices => {
                // A device without a window, and never near enough to its end: the only one that can be in line for ever.
                let stuck = self.members.iter().filter(|member| member.wave <= self.run.wave);
                let mut stuck = stuck
                    .filter(|member| !matches!(member.state, State::Queued))
                    .filter(|member| {
                        matches!(
                            member.state,
                            State::Planned | State::Sent | State::Accepted | State::Reverting
                        )
                    });
                assert!(
                    stuck.clone().count() > 0
                        && stuck.all(|member| member.state == State::Planned && member.windows == 0),
                    "waits for devices that nothing keeps: {:?}",
                    self.counts
                );
            }
            Waiting::Proof => {
                assert_eq!(begun(|counts| counts.planned + counts.in_flight), 0);
                assert_eq!(self.counts[self.run.wave as usize].proven(), 0);
            }
            Waiting::Approval => assert!(self.run.approved <= self.run.wave),
            Waiting::Person => {
                assert!(
                    self.run.breach.is_some() || self.control.wish == 1,
                    "nobody can help: {:?}",
                    last.phase
                );
            }
            Waiting::Gates(_) => assert!(matches!(self.gate, 1 | 2)),
            Waiting::Fault(_) => assert!(self.fault),
            Waiting::Another(_) => assert!(self.preempted),
            Waiting::Soak(until) => panic!("the soak should have ended at {until}, and it is {}", self.wall()),
        }
    }

    fn wall(&self) -> Millis {
        self.real + self.offset
    }

    fn steady(&self) -> Steady {
        Steady(u64::try_from(self.real - START * 1000).unwrap())
    }

    fn schedule(&mut self, after: Millis, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.real + after, self.sequence, event)));
    }

    fn enlist(&mut self, fleet: &Fleet, places: &[Place], fates: impl Fn(usize) -> (Fate, Option<Millis>)) {
        let mut known = BTreeMap::new();
        for place in places {
            let index = place.candidate as usize;
            let device = &fleet.devices[index];
            let windows = *known
                .entry((device.site, device.canary))
                .or_insert_with(|| select::windows(&self.strategy.windows, &device.labels()));
            while self.sites.len() <= device.site as usize {
                self.sites.push(self.sites.len().to_string());
            }
            let (fate, offline) = fates(index);
            let id = self.members.len();
            if let Some(until) = offline.filter(|until| *until < Millis::MAX) {
                self.schedule(until, Event::Online(id));
            }
            self.members.push(Member {
                wave: place.wave,
                ordinal: place.ordinal,
                site: device.site,
                windows,
                not_after: device.not_after,
                state: State::Planned,
                fate,
                online: offline.is_none(),
                attempts: 0,
                job: 0,
                busy: false,
                confirmed: 0,
            });
            let counts = &mut self.counts[place.wave as usize];
            counts.members += 1;
            counts.planned += 1;
            self.stand_in_line(id);
        }
    }

    fn stand_in_line(&mut self, id: usize) {
        let member = &self.members[id];
        let place = (member.wave, member.ordinal, id);
        self.by_end.insert((member.not_after, id));
        self.line.entry(member.windows).or_default().insert(place);
    }

    fn leave_line(&mut self, id: usize) {
        let member = &self.members[id];
        let place = (member.wave, member.ordinal, id);
        self.by_end.remove(&(member.not_after, id));
        if let Some(line) = self.line.get_mut(&member.windows) {
            line.remove(&place);
        }
    }

    fn slot(counts: &mut WaveCounts, state: State) -> &mut u32 {
        match state {
            State::Planned => &mut counts.planned,
            State::Queued => &mut counts.offline,
            State::Sent | State::Accepted => &mut counts.in_flight,
            State::Confirmed => &mut counts.confirmed,
            State::Failed => &mut counts.failed,
            State::Rejected => &mut counts.rejected,
            State::RolledBack => &mut counts.rolled_back,
            State::TimedOut => &mut counts.timed_out,
            State::Lost => &mut counts.lost,
            State::Reverting => &mut counts.reverting,
            State::Reverted => &mut counts.reverted,
            State::Unreverted => &mut counts.unreverted,
        }
    }

    /// Moves a member, its wave's counts and its group's.
    fn become_(&mut self, id: usize, state: State) {
        let wall = self.wall();
        let member = &mut self.members[id];
        let old = std::mem::replace(&mut member.state, state);
        let wave = member.wave as usize;
        let counts = &mut self.counts[wave];
        *Self::slot(counts, old) -= 1;
        *Self::slot(counts, state) += 1;
        counts.changed = wall;
        self.changed[wave] = self.real;
        let holds = |state| matches!(state, State::Sent | State::Accepted | State::TimedOut);
        self.regroup(id, holds(old), holds(state));
    }

    fn regroup(&mut self, id: usize, before: bool, after: bool) {
        if self.strategy.limits.per_group.is_none() || before == after {
            return;
        }
        let site = &self.sites[self.members[id].site as usize];
        let count = self.unavailable.entry(site.clone()).or_default();
        *count = if after { *count + 1 } else { *count - 1 };
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Online(id) => self.online(id),
            Event::Wake(id, job) if self.members[id].job == job && self.members[id].state == State::Planned => {
                self.stand_in_line(id);
            }
            Event::Accept(id, job) if self.members[id].job == job => self.accept(id),
            Event::Postpone(id, job) if self.members[id].job == job => self.postpone(id),
            Event::End(id, job) if self.members[id].job == job => self.end(id),
            Event::GoneForGood(id, job) if self.members[id].job == job && self.members[id].state == State::TimedOut => {
                self.become_(id, State::Lost);
            }
            Event::Heard(id, job) if self.members[id].job == job => self.heard(id),
            Event::Back(id, job) if self.members[id].job == job => self.back(id),
            Event::Outside(deed) => self.outside(&deed),
            _ => {}
        }
    }

    fn online(&mut self, id: usize) {
        self.members[id].online = true;
        if self.members[id].state == State::Queued {
            self.stand_in_line(id);
        }
    }

    fn accept(&mut self, id: usize) {
        let job = self.members[id].job;
        self.become_(id, State::Accepted);
        let policy = &self.strategy.job;
        match self.members[id].fate {
            Fate::Vanishes(_) => {
                let step = policy.step_timeout;
                self.schedule(step, Event::End(id, job));
            }
            _ => {
                let work = 2 * SECOND + i64::try_from(id % 7).unwrap() * SECOND;
                self.schedule(work, Event::End(id, job));
            }
        }
    }

    /// It has not accepted: its slot goes to another, its job waits.
    fn postpone(&mut self, id: usize) {
        self.finish_job(id);
        if let Fate::Deaf(times) = self.members[id].fate {
            self.members[id].fate = if times <= 1 { Fate::Good } else { Fate::Deaf(times - 1) };
        }
        if self.members[id].state == State::TimedOut {
            return;
        }
        self.members[id].online = false;
        self.become_(id, State::Queued);
        let pause = self.strategy.job.offline_after;
        self.schedule(pause, Event::Online(id));
    }

    fn end(&mut self, id: usize) {
        self.finish_job(id);
        let wall = self.wall();
        let policy = self.strategy.job.clone();
        let member = &mut self.members[id];
        let job = member.job;
        match member.fate {
            Fate::Good | Fate::Deaf(_) => {
                member.confirmed = wall;
                self.become_(id, State::Confirmed);
            }
            Fate::Fails(times) => {
                member.fate = if times == u8::MAX {
                    member.fate
                } else if times <= 1 {
                    Fate::Good
                } else {
                    Fate::Fails(times - 1)
                };
                if u32::from(member.attempts) <= policy.max_retries {
                    self.become_(id, State::Planned);
                    self.schedule(policy.retry_backoff, Event::Wake(id, job));
                } else {
                    self.become_(id, State::Failed);
                }
            }
            Fate::Rejects => self.become_(id, State::Rejected),
            Fate::GoesBack => self.become_(id, State::RolledBack),
            Fate::Vanishes(returns) => {
                self.become_(id, State::TimedOut);
                self.schedule(policy.lost_after, Event::GoneForGood(id, job));
                if let Some(after) = returns {
                    self.schedule(after, Event::Heard(id, job));
                }
            }
        }
    }

    /// A device that had vanished is there again: it may be tried again.
    fn heard(&mut self, id: usize) {
        let member = &mut self.members[id];
        member.fate = Fate::Good;
        if member.state == State::TimedOut && u32::from(member.attempts) <= self.strategy.job.max_retries {
            self.stand_in_line(id);
        }
    }

    /// The end of a rollback job.
    fn back(&mut self, id: usize) {
        self.finish_job(id);
        self.regroup(id, true, false);
        // One in eight cannot.
        let state = if id % 8 == 7 {
            State::Unreverted
        } else {
            State::Reverted
        };
        self.become_(id, state);
    }

    fn finish_job(&mut self, id: usize) {
        assert!(self.members[id].busy, "a job ended that was not on its way");
        self.members[id].busy = false;
        self.in_flight -= 1;
    }

    fn begin_job(&mut self, id: usize) {
        let member = &mut self.members[id];
        assert!(!member.busy, "a device twice at once");
        member.busy = true;
        member.job += 1;
        self.in_flight += 1;
        assert!(
            self.in_flight <= self.strategy.limits.max_in_flight,
            "too many in flight"
        );
    }

    fn outside(&mut self, deed: &Deed) {
        match *deed {
            Deed::Wish(wish) => self.control.wish = wish,
            Deed::Approve(wave) => {
                self.control.approved = wave;
                self.control.other_plan = false;
            }
            Deed::ApproveOther => self.control.other_plan = true,
            Deed::Resume => self.control.resume += 1,
            Deed::Retry => self.control.retry += 1,
            Deed::Fault(on) => self.fault = on,
            Deed::Preempt(on) => self.preempted = on,
            Deed::Gate(says) => self.gate = says,
            Deed::Restart => {
                // The ledger remembers how many, not when.
                let without = Limits {
                    max_per_minute: None,
                    ramp: None,
                    ..self.strategy.limits.clone()
                };
                let sent = u32::MAX - self.rate.allowed(self.steady(), &without, 0);
                self.rate = Rate::after(self.steady(), sent);
            }
            Deed::Jump(by) => self.offset += by,
            Deed::Join(count) => self.join(count),
        }
    }

    fn join(&mut self, count: u8) {
        if self.run.ended.is_some() {
            return;
        }
        let newcomer = |n: u8| crate::rollout_fleets::Device {
            not_after: START + 20 * 86_400 + i64::from(n) * 3600,
            site: u32::from(n % 4),
            canary: n % 2 == 0,
        };
        let fleet = Fleet {
            ids: (0..count)
                .map(|n| format!("joiner-{}-{n}", self.members.len()))
                .collect(),
            devices: (0..count).map(newcomer).collect(),
        };
        let (plan, places) = join(&self.plan, &self.strategy, &fleet.candidates(&self.strategy));
        self.plan = plan;
        self.enlist(&fleet, &places, |_| (Fate::Good, None));
        let last = self.counts.len() - 1;
        self.counts[last].changed = self.wall();
        self.changed[last] = self.real;
    }

    /// Judges until there is no news, carries out what follows, and starts whom it allows.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < self.plan.waves.len() + 8, "judging never comes to rest");
            let judgement = self.judge();
            let quiet = judgement.run == self.run && judgement.notes.is_empty();
            self.check_news(&judgement);
            self.run = judgement.run.clone();
            let acted = self.act(&judgement);
            self.last = Some(judgement);
            if quiet && !acted {
                break;
            }
        }
        self.admit();
        self.send_back();
    }

    fn judge(&mut self) -> Judgement {
        self.judgements += 1;
        let (resume, retry) = (self.control.resume.to_string(), self.control.retry.to_string());
        let word = |word: &str| if word == "0" { String::new() } else { word.to_owned() };
        let (resume, retry) = (word(&resume), word(&retry));
        let seen = Seen {
            waves: &self.counts,
            control: Control {
                state: [Wish::Running, Wish::Paused, Wish::Aborted][usize::from(self.control.wish)],
                through_wave: self.control.approved,
                plan_hash: if self.control.other_plan {
                    "another"
                } else {
                    &self.plan.hash
                },
                resume: &resume,
                retry_failed: &retry,
            },
            gates: match self.gate {
                0 => Gates::Well,
                1 => Gates::Pending,
                2 => Gates::Unknown("does not answer"),
                _ => Gates::Bad("no"),
            },
            fault: self.fault.then_some("no broker"),
            preempted_by: self.preempted.then_some("another"),
            online: 0,
        };
        judge(self.wall(), &self.strategy, &self.plan, &self.run, &seen)
    }

    fn check_news(&mut self, judgement: &Judgement) {
        let failures =
            |waves: &[WaveCounts]| -> u32 { waves.iter().map(|counts| counts.failures() + counts.vanished()).sum() };
        if let (Some((in_flight, before)), true) = (self.at_breach, self.run.breach.is_some()) {
            let since = failures(&self.counts).saturating_sub(before);
            assert!(
                since <= in_flight,
                "{since} failed after a breach with {in_flight} in flight"
            );
        }
        if judgement.run.breach.is_none() {
            self.at_breach = None;
        } else if self.run.breach.is_none() {
            self.at_breach = Some((self.in_flight, failures(&self.counts)));
            self.check_breach(judgement);
        }
        for note in &judgement.notes {
            if let Note::WaveBegan(wave) = note {
                self.check_wave_begins(*wave, &judgement.run);
            }
            self.notes.push((self.real, note.clone()));
        }
    }

    /// A breach is seen at the first device too many.
    fn check_breach(&self, judgement: &Judgement) {
        for (wave, (planned, counts)) in self.plan.waves.iter().zip(&self.counts).enumerate() {
            let forgiven = judgement.run.written_off.get(wave).copied().unwrap_or_default();
            let failed = counts.failures().saturating_sub(forgiven.failed);
            let lost = counts.vanished().saturating_sub(forgiven.lost);
            if self.pace.quantum == 1 {
                assert!(failed <= planned.max_failed + 1, "{failed} failures in wave {wave}");
                assert!(lost <= planned.max_lost + 1, "{lost} losses in wave {wave}");
            }
        }
    }

    fn check_wave_begins(&self, wave: u32, next: &Run) {
        assert_eq!(wave, self.run.wave + 1, "waves begin one after the other");
        assert!(self.run.breach.is_none() && !self.fault && !self.preempted && self.control.wish == 0);
        let before = self.run.wave as usize;
        for counts in &self.counts[..=before] {
            assert_eq!(
                counts.planned + counts.in_flight + counts.reverting,
                0,
                "wave {wave} began too early"
            );
        }
        let counts = &self.counts[before];
        if counts.members == 0 {
            return;
        }
        assert!(counts.proven() > 0, "wave {wave} began without a proof");
        let rules = &self.strategy.waves[before];
        assert!(
            !rules.approval || next.approved > self.run.wave,
            "wave {wave} began without approval"
        );
        if !self.pace.jumps && !self.strategy.emergency {
            let quiet = self.changed[..=before]
                .iter()
                .max()
                .map_or(0, |changed| self.real - changed);
            assert!(
                quiet >= rules.soak,
                "wave {wave} began after {quiet} of {} ms",
                rules.soak
            );
        }
    }

    fn act(&mut self, judgement: &Judgement) -> bool {
        let mut acted = false;
        for action in &judgement.actions {
            match *action {
                Action::Retry { through_wave, failed } => acted |= self.retry(through_wave, failed),
                Action::Revert { wave } => acted |= self.revert(wave),
                Action::Substitute { wave } => acted |= self.substitute(wave),
                Action::BlockTemplate | Action::ClearTemplate => {}
            }
        }
        acted
    }

    fn retry(&mut self, through_wave: u32, failed: bool) -> bool {
        let again = |member: &Member| {
            let state = match member.state {
                State::Failed | State::Rejected | State::RolledBack => failed,
                State::Reverted => true,
                _ => false,
            };
            member.wave <= through_wave && state
        };
        let ids: Vec<usize> = (0..self.members.len()).filter(|id| again(&self.members[*id])).collect();
        for id in &ids {
            let member = &mut self.members[*id];
            member.attempts = 0;
            member.job += 1;
            self.become_(*id, State::Planned);
            self.stand_in_line(*id);
        }
        !ids.is_empty()
    }

    fn revert(&mut self, wave: u32) -> bool {
        let wall = self.wall();
        let ids: Vec<usize> = (0..self.members.len())
            .filter(|id| self.members[*id].wave == wave && self.members[*id].state == State::Confirmed)
            .collect();
        for id in &ids {
            let member = &self.members[*id];
            let good = member.not_after * 1000 >= wall + self.strategy.rollback_min_remaining;
            if good && member.confirmed > wall - self.strategy.grace {
                self.become_(*id, State::Reverting);
                self.reverting.insert(*id);
            } else {
                self.become_(*id, State::Unreverted);
            }
        }
        !ids.is_empty()
    }

    /// The first of a later wave that is online comes forward.
    fn substitute(&mut self, wave: u32) -> bool {
        let later = |member: &Member| member.wave > wave && member.state == State::Planned && member.online;
        let Some(id) = self.members.iter().position(later) else {
            return false;
        };
        self.leave_line(id);
        let old = self.members[id].wave as usize;
        let ordinal = self.counts[wave as usize].members;
        for (wave, more) in [(old, false), (wave as usize, true)] {
            let counts = &mut self.counts[wave];
            counts.members = if more { counts.members + 1 } else { counts.members - 1 };
            counts.planned = if more { counts.planned + 1 } else { counts.planned - 1 };
        }
        self.members[id].wave = wave;
        self.members[id].ordinal = ordinal;
        self.counts[wave as usize].changed = self.wall();
        self.changed[wave as usize] = self.real;
        self.stand_in_line(id);
        true
    }

    fn doors(&self) -> Doors {
        let open = self.calendar.open(self.wall());
        Doors::new(self.wall(), &self.strategy, self.run.wave, open)
    }

    fn serves(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.admits) && self.run.ended.is_none()
    }

    /// Those whose turn may have come, in the order of the plan: at most `limit`, of groups that are not full.
    fn waiting(&self, doors: &Doors, limit: usize) -> Vec<usize> {
        let full = |id: usize| {
            self.strategy.limits.per_group.as_ref().is_some_and(|per_group| {
                let member = &self.members[id];
                let site = &self.sites[member.site as usize];
                member.state != State::TimedOut
                    && self
                        .unavailable
                        .get(site)
                        .is_some_and(|count| *count >= per_group.max_unavailable)
            })
        };
        let mut places = BTreeSet::new();
        for (_, line) in self.line.iter().filter(|(windows, _)| **windows & doors.open != 0) {
            let begun = line.range(..(self.run.wave + 1, 0, 0)).filter(|(_, _, id)| !full(*id));
            places.extend(begun.take(limit));
        }
        if let Some(before) = doors.override_before {
            let near = self
                .by_end
                .range(..(before, 0))
                .map(|(_, id)| *id)
                .filter(|id| !full(*id));
            let begun = near.filter(|id| self.members[*id].wave <= self.run.wave);
            places.extend(
                begun
                    .take(limit)
                    .map(|id| (self.members[id].wave, self.members[id].ordinal, id)),
            );
        }
        places.into_iter().take(limit).map(|(_, _, id)| id).collect()
    }

    /// The group that a start counts into: a device that is to be tried again holds its place already.
    fn group(&self, id: usize) -> &str {
        let member = &self.members[id];
        match member.state {
            State::TimedOut => "its own",
            _ => &self.sites[member.site as usize],
        }
    }

    fn admit(&mut self) {
        const PAGE: usize = 120;
        while self.serves() {
            let succeeded = self.counts.iter().map(WaveCounts::proven).sum();
            let steady = self.steady();
            let limits = &self.strategy.limits;
            let allowed = self.rate.allowed(steady, limits, succeeded);
            let room = room(limits, self.in_flight).min(allowed);
            if room == 0 {
                break;
            }
            let doors = self.doors();
            let line = self.waiting(&doors, PAGE);
            let (online, offline): (Vec<usize>, Vec<usize>) = line.iter().partition(|id| self.members[**id].online);
            // A job for a device that is not there waits without a slot.
            for id in &offline {
                self.leave_line(*id);
                self.become_(*id, State::Queued);
            }
            let limits = &self.strategy.limits;
            let mut unavailable = std::mem::take(&mut self.unavailable);
            let candidates = online.iter().map(|id| Candidate {
                wave: self.members[*id].wave,
                group: self.group(*id),
                windows: self.members[*id].windows,
                not_after: self.members[*id].not_after,
            });
            let chosen = choose(&doors, limits, room, &mut unavailable, candidates);
            self.unavailable = unavailable;
            // Counted by `become_` as they start.
            for position in &chosen {
                let group = self.group(online[*position]).to_owned();
                self.unavailable.entry(group).and_modify(|count| *count -= 1);
            }
            for position in &chosen {
                self.start(online[*position], &doors);
            }
            if chosen.is_empty() && offline.is_empty() {
                break;
            }
            // Jobs that wait change the counts, and the counts the judgement.
            if !offline.is_empty() {
                let judgement = self.judge();
                self.check_news(&judgement);
                self.run = judgement.run.clone();
                self.act(&judgement);
                self.last = Some(judgement);
            }
        }
    }

    fn start(&mut self, id: usize, doors: &Doors) {
        let member = &self.members[id];
        assert!(member.wave <= self.run.wave, "a device of a later wave");
        let near = doors.override_before.is_some_and(|before| member.not_after < before);
        assert!(near || member.windows & doors.open != 0, "a closed window");
        assert!(
            self.run.ended.is_none() && self.run.breach.is_none(),
            "started after the end"
        );
        assert!(
            !self.fault && !self.preempted && self.control.wish == 0,
            "started where it must not"
        );
        assert_eq!(
            breached(&self.strategy, &self.plan, &self.run, &self.counts),
            None,
            "started after a breach"
        );
        self.starts += 1;
        self.leave_line(id);
        self.rate.record(self.steady(), 1);
        self.begin_job(id);
        self.members[id].attempts = self.members[id].attempts.saturating_add(1);
        if self.members[id].state != State::TimedOut {
            self.become_(id, State::Sent);
        }
        self.check_limits(id);
        let job = self.members[id].job;
        if matches!(self.members[id].fate, Fate::Deaf(_)) {
            let after = self.strategy.job.offline_after;
            self.schedule(after, Event::Postpone(id, job));
        } else {
            self.schedule(SECOND, Event::Accept(id, job));
        }
    }

    fn check_limits(&mut self, id: usize) {
        match self.sent.back_mut().filter(|(at, _)| *at == self.real) {
            Some((_, jobs)) => *jobs += 1,
            None => self.sent.push_back((self.real, 1)),
        }
        while self.sent.front().is_some_and(|(at, _)| self.real - at >= MINUTE) {
            self.sent.pop_front();
        }
        let limits = &self.strategy.limits;
        if limits.max_per_minute.is_some() || limits.ramp.is_some() {
            let minute: u32 = self.sent.iter().map(|(_, jobs)| jobs).sum();
            let rate = per_minute(limits, self.counts.iter().map(WaveCounts::proven).sum());
            assert!(minute <= rate, "{minute} within a minute, {rate} allowed");
        }
        if let Some(per_group) = &limits.per_group {
            let count = self.unavailable[&self.sites[self.members[id].site as usize]];
            assert!(count <= per_group.max_unavailable, "{count} of a group");
        }
    }

    /// Devices to be sent back: within the slots and the groups' places, whatever windows and rate say.
    fn send_back(&mut self) {
        if !self.last.as_ref().is_some_and(|last| last.reverts) {
            return;
        }
        let ids: Vec<usize> = self.reverting.iter().copied().collect();
        for id in ids {
            if room(&self.strategy.limits, self.in_flight) == 0 {
                break;
            }
            let site = &self.sites[self.members[id].site as usize];
            let full = self.strategy.limits.per_group.as_ref().is_some_and(|per_group| {
                self.unavailable
                    .get(site)
                    .is_some_and(|count| *count >= per_group.max_unavailable)
            });
            if full {
                continue;
            }
            self.reverting.remove(&id);
            self.begin_job(id);
            self.regroup(id, false, true);
            let job = self.members[id].job;
            self.schedule(5 * SECOND, Event::Back(id, job));
        }
    }

    /// When something may happen next.
    fn next_time(&mut self) -> Option<Millis> {
        let event = self.events.peek().map(|Reverse((at, _, _))| *at);
        if self.run.ended.is_some() {
            return event;
        }
        let wall = self.wall();
        let mut timers = Vec::new();
        if let Some(Waiting::Soak(until)) = self.last.as_ref().and_then(|last| last.waiting.as_ref()) {
            timers.push(*until);
        }
        timers.extend(self.counts.iter().map(|counts| counts.changed + SETTLE));
        let in_line = self.line.values().any(|line| !line.is_empty());
        if in_line && self.serves() {
            timers.extend(self.calendar.next_change(wall));
            let near = self.strategy.override_before_expiry;
            let ends = self
                .by_end
                .range(((wall + near.unwrap_or(0)) / 1000, usize::MAX)..)
                .next();
            if let (Some(before), Some((end, _))) = (near, ends) {
                timers.push(end * 1000 - before + 1);
            }
        }
        let mut next: Vec<Millis> = timers
            .into_iter()
            .filter(|at| *at > wall)
            .map(|at| at - self.offset)
            .collect();
        next.extend(event);
        if in_line && self.serves() && room(&self.strategy.limits, self.in_flight) > 0 {
            let succeeded = self.counts.iter().map(WaveCounts::proven).sum();
            let now = self.steady();
            let free = self
                .rate
                .next(now, &self.strategy.limits, succeeded)
                .filter(|free| *free > now);
            next.extend(free.map(|free| START * 1000 + i64::try_from(free.0).unwrap()));
        }
        next.into_iter().min()
    }

    /// How it stands, for messages.
    pub(crate) fn phase(&self) -> Phase {
        self.last.as_ref().unwrap().phase
    }
}
