//! What becomes of a device and its job.

use super::*;

impl World {
    pub(super) fn slot(counts: &mut WaveCounts, state: State) -> &mut u32 {
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
    pub(super) fn turn_into(&mut self, id: usize, state: State) {
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

    pub(super) fn regroup(&mut self, id: usize, before: bool, after: bool) {
        if self.strategy.limits.per_group.is_none() || before == after {
            return;
        }
        let site = &self.sites[self.members[id].site as usize];
        let count = self.unavailable.entry(site.clone()).or_default();
        *count = if after { *count + 1 } else { *count - 1 };
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Online(id) => self.online(id),
            Event::Wake(id, job) if self.members[id].job == job && self.members[id].state == State::Planned => {
                self.stand_in_line(id);
            }
            Event::Accept(id, job) if self.members[id].job == job => self.accept(id),
            Event::Postpone(id, job) if self.members[id].job == job => self.postpone(id),
            Event::End(id, job) if self.members[id].job == job => self.end(id),
            Event::GoneForGood(id, job) if self.members[id].job == job && self.members[id].state == State::TimedOut => {
                self.turn_into(id, State::Lost);
            }
            Event::Heard(id, job) if self.members[id].job == job => self.heard(id),
            Event::Back(id, job) if self.members[id].job == job => self.back(id),
            Event::Outside(deed) => self.outside(&deed),
            _ => {}
        }
    }

    pub(super) fn online(&mut self, id: usize) {
        self.members[id].online = true;
        if self.members[id].state == State::Queued {
            self.stand_in_line(id);
        }
    }

    pub(super) fn accept(&mut self, id: usize) {
        let job = self.members[id].job;
        self.turn_into(id, State::Accepted);
        // One that vanishes is missed when its step should have been done.
        let work = match self.members[id].fate {
            Fate::Vanishes(_) => self.strategy.job.step_timeout,
            _ => 2 * SECOND + i64::try_from(id % 7).unwrap() * SECOND,
        };
        self.schedule(work, Event::End(id, job));
    }

    /// It has not accepted: its slot goes to another, its job waits.
    pub(super) fn postpone(&mut self, id: usize) {
        self.finish_job(id);
        if let Fate::Deaf(times) = self.members[id].fate {
            self.members[id].fate = if times <= 1 { Fate::Good } else { Fate::Deaf(times - 1) };
        }
        if self.members[id].state == State::TimedOut {
            return;
        }
        self.members[id].online = false;
        self.turn_into(id, State::Queued);
        let pause = self.strategy.job.offline_after;
        self.schedule(pause, Event::Online(id));
    }

    pub(super) fn end(&mut self, id: usize) {
        self.finish_job(id);
        let wall = self.wall();
        let policy = self.strategy.job.clone();
        let member = &mut self.members[id];
        let job = member.job;
        match member.fate {
            Fate::Good | Fate::Deaf(_) => {
                member.confirmed = wall;
                self.turn_into(id, State::Confirmed);
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
                    self.turn_into(id, State::Planned);
                    self.schedule(policy.retry_backoff, Event::Wake(id, job));
                } else {
                    self.turn_into(id, State::Failed);
                }
            }
            Fate::Rejects => self.turn_into(id, State::Rejected),
            Fate::GoesBack => self.turn_into(id, State::RolledBack),
            Fate::Vanishes(returns) => {
                self.turn_into(id, State::TimedOut);
                self.schedule(policy.lost_after, Event::GoneForGood(id, job));
                if let Some(after) = returns {
                    self.schedule(after, Event::Heard(id, job));
                }
            }
        }
    }

    /// A device that had vanished is there again: it may be tried again.
    pub(super) fn heard(&mut self, id: usize) {
        let member = &mut self.members[id];
        member.fate = Fate::Good;
        if member.state == State::TimedOut && u32::from(member.attempts) <= self.strategy.job.max_retries {
            self.stand_in_line(id);
        }
    }

    /// The end of a rollback job.
    pub(super) fn back(&mut self, id: usize) {
        self.finish_job(id);
        self.regroup(id, true, false);
        // One in eight cannot.
        let state = if id % 8 == 7 {
            State::Unreverted
        } else {
            State::Reverted
        };
        self.turn_into(id, state);
    }

    pub(super) fn finish_job(&mut self, id: usize) {
        assert!(self.members[id].busy, "a job ended that was not on its way");
        self.members[id].busy = false;
        self.in_flight -= 1;
    }

    pub(super) fn begin_job(&mut self, id: usize) {
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
}
