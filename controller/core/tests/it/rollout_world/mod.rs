//! A fleet, a ledger and a scheduler in memory, around the pure parts: what the controller does with them, without the world.
//!
//! Real time only goes forward; the wall clock that decisions are given may jump. What must hold at every step is asserted
//! where it could break: when a device is started, when a wave begins, when a breach is seen, whenever a run is judged.

mod checks;
mod judging;
mod members;
mod outside;
mod parts;
mod serving;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use certwave_core::model::Millis;
use certwave_core::rollout::admit::{Doors, Rate, Steady, Waiting as Candidate, choose, per_minute, room};
use certwave_core::rollout::forecast::{Forecast, Outlook, forecast};
use certwave_core::rollout::judge::{
    Action, Control, Gates, Judgement, Note, Phase, SETTLE, Seen, Waiting, Wish, breached, judge,
};
use certwave_core::rollout::plan::{Fit, Place, join, plan_fitting};
use certwave_core::rollout::run::{Plan, Run, WaveCounts};
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::Calendar;

use crate::rollout_fleets::{Fleet, START};

pub(crate) use parts::{Deed, Fate, Pace};
use parts::{Event, Member, Person, State};

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;

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

    /// What is to be expected, where a job takes `job_time`.
    pub(crate) fn forecast(&self, job_time: Millis, online_permille: u32) -> Forecast {
        let mut ends = BTreeMap::new();
        for member in &self.members {
            if matches!(member.state, State::Planned | State::Queued) {
                *ends.entry(member.not_after.div_euclid(3600) * 3600).or_default() += 1;
            }
        }
        let outlook = Outlook {
            now: self.wall(),
            plan: &self.plan,
            run: &self.run,
            remaining: &ends.into_iter().collect::<Vec<_>>(),
            succeeded: self.total(WaveCounts::proven),
            job_time,
            online_permille,
            calendar: &self.calendar,
            windows: 1,
        };
        forecast(&self.strategy, &outlook)
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
