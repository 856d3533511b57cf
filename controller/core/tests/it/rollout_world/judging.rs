//! What is judged, and what follows from it in the ledger.

use super::*;

impl World {
    /// Judges until there is no news, carries out what follows, and starts whom it allows.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn judge(&mut self) -> Judgement {
        self.judgements += 1;
        let (resume, retry) = (self.control.resume.to_string(), self.control.retry.to_string());
        let rollback = self.control.rollback.to_string();
        let word = |word: &str| if word == "0" { String::new() } else { word.to_owned() };
        let (resume, retry, rollback) = (word(&resume), word(&retry), word(&rollback));
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
                rollback: &rollback,
            },
            gates: match self.gate {
                0 => Gates::Well,
                1 => Gates::Pending,
                2 => Gates::Unknown("does not answer"),
                _ => Gates::Bad("no"),
            },
            fault: self.fault.then_some("no broker"),
            ledger_out: None,
            clock_turned: None,
            starting: false,
            preempted_by: self.preempted.then_some("another"),
            online: 0,
        };
        judge(self.wall(), &self.strategy, &self.plan, &self.run, &seen)
    }

    pub(super) fn act(&mut self, judgement: &Judgement) -> bool {
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

    pub(super) fn retry(&mut self, through_wave: u32, failed: bool) -> bool {
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
            self.turn_into(*id, State::Planned);
            self.stand_in_line(*id);
        }
        !ids.is_empty()
    }

    pub(super) fn revert(&mut self, wave: u32) -> bool {
        let wall = self.wall();
        let ids: Vec<usize> = (0..self.members.len())
            .filter(|id| self.members[*id].wave == wave && self.members[*id].state == State::Confirmed)
            .collect();
        for id in &ids {
            let member = &self.members[*id];
            let good = member.not_after * 1000 >= wall + self.strategy.rollback_min_remaining;
            if good && member.confirmed > wall - self.strategy.grace {
                self.turn_into(*id, State::Reverting);
                self.reverting.insert(*id);
            } else {
                self.turn_into(*id, State::Unreverted);
            }
        }
        !ids.is_empty()
    }

    /// The first of a later wave that is online comes forward.
    pub(super) fn substitute(&mut self, wave: u32) -> bool {
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
}
