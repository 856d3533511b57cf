//! Looks at how the waves stand and says what follows. Pure: the same input gives the same answer, and judging again
//! without news changes nothing.
//!
//! Success is proof, not absence of failure: a wave is done when nobody of it is waiting or in flight and somebody of it has
//! proven the new certificate; it is good when its budgets hold. Budgets of all waves begun are looked at in every phase.

mod said;
mod seen;

use crate::model::Millis;

pub use said::{Action, Judgement, Note, Phase, Waiting};
pub use seen::{Control, Gates, Seen, Wish};

use super::run::{Breach, BreachCause, Ended, Plan, Run, WaveCounts, WrittenOff};
use super::strategy::{OnBreach, Strategy, Wave};

/// A wave in which jobs still wait for offline devices is done only after this long without a change: just after a start
/// nobody is known to be online yet. Milliseconds.
pub const SETTLE: Millis = 10_000;

/// A wave whose devices are all offline may grow by as many as it has, and so many more.
const SUBSTITUTES: u32 = 10;

/// After a fault of our own side devices need up to this long to come back, or as long as they count as offline after,
/// whichever is less. Milliseconds.
pub const RETURN: Millis = 120_000;

/// Which limit the waves begun exceed, if one does. The scheduler asks this too before it starts anything.
pub fn breached(
    strategy: &Strategy,
    plan: &Plan,
    run: &Run,
    waves: &[WaveCounts],
) -> Option<(u32, BreachCause, String)> {
    let begun = strategy.waves.iter().zip(&plan.waves).zip(waves);
    for (number, ((wave, planned), counts)) in (0..=run.wave).zip(begun) {
        let forgiven = written_off(run, number);
        let failed = counts.failures().saturating_sub(forgiven.failed);
        let lost = counts.vanished().saturating_sub(forgiven.lost);
        let found = |cause, detail| Some((number, cause, detail));
        if failed > planned.max_failed {
            let detail = format!("{failed} devices failed where {} may", planned.max_failed);
            return found(BreachCause::Failed, detail);
        }
        if lost > planned.max_lost {
            let detail = format!(
                "{lost} devices vanished after they accepted where {} may",
                planned.max_lost
            );
            return found(BreachCause::Lost, detail);
        }
        let ended = counts.proven() + failed + lost;
        let percent = u32::from(wave.thresholds.success_percent);
        if ended >= wave.thresholds.min_sample.max(1)
            && u64::from(counts.proven()) * 100 < u64::from(percent) * u64::from(ended)
        {
            let detail = format!(
                "{} of {ended} devices are confirmed where {percent} % must be",
                counts.proven()
            );
            return found(BreachCause::Success, detail);
        }
    }
    None
}

/// What shows only after a Rotation was complete: that more devices of a wave than it allows did not come back by their new
/// certificates when the old ones were retired.
pub fn late_breach(
    strategy: &Strategy,
    plan: &Plan,
    run: &Run,
    waves: &[WaveCounts],
) -> Option<(u32, BreachCause, String)> {
    let probations = waves.iter().any(|wave| wave.probation_failed > 0);
    probations.then(|| breached(strategy, plan, run, waves)).flatten()
}

/// Judges a run.
pub fn judge(now: Millis, strategy: &Strategy, plan: &Plan, run: &Run, seen: &Seen<'_>) -> Judgement {
    let mut judge = Judge {
        now,
        strategy,
        plan,
        seen,
        next: run.clone(),
        actions: Vec::new(),
        notes: Vec::new(),
        refused: None,
    };
    let (phase, waiting) = judge.decide();
    let serving = matches!(phase, Phase::Running | Phase::Soaking | Phase::WaitingForApproval);
    let reverting = judge.next.breach.is_some() && matches!(phase, Phase::RollingBack | Phase::RolledBack);
    Judgement {
        admits: serving && !matches!(waiting, Some(Waiting::Fault(_))),
        reverts: reverting && judge.held().is_none(),
        run: judge.next,
        phase,
        waiting,
        actions: judge.actions,
        notes: judge.notes,
        refused: judge.refused,
    }
}

struct Judge<'a> {
    now: Millis,
    strategy: &'a Strategy,
    plan: &'a Plan,
    seen: &'a Seen<'a>,
    next: Run,
    actions: Vec<Action>,
    notes: Vec<Note>,
    refused: Option<String>,
}

type Verdict = (Phase, Option<Waiting>);

impl Judge<'_> {
    fn decide(&mut self) -> Verdict {
        if let Some(ended) = self.next.ended {
            return (over(ended), None);
        }
        if self.seen.control.state == Wish::Aborted {
            return self.end(Ended::Aborted);
        }
        self.heed_outage();
        self.heed_pause();
        self.approve();
        if let Some(verdict) = self.answered() {
            return verdict;
        }
        self.send_back();
        if self.next.breach.is_none() {
            self.look_for_breach();
        }
        if self.next.breach.is_some() {
            return self.stopped();
        }
        if let Some(verdict) = self.held() {
            return verdict;
        }
        if let Gates::Unknown(why) = self.seen.gates {
            self.next.soak_since = None;
            return (Phase::Paused, Some(Waiting::Gates(why.to_owned())));
        }
        self.advance()
    }

    /// What keeps new jobs from being sent whatever the devices do.
    fn held(&mut self) -> Option<Verdict> {
        if self.seen.fault.is_some() && !self.seen.starting {
            // What was quiet because nobody could speak has proven nothing.
            self.next.soak_since = None;
            self.next.last_fault = Some(self.now);
        }
        let waiting = if self.seen.control.state == Wish::Paused {
            Waiting::Person
        } else if let Some(other) = self.seen.preempted_by {
            Waiting::Another(other.to_owned())
        } else {
            Waiting::Fault(self.seen.fault?.to_owned())
        };
        Some((Phase::Paused, Some(waiting)))
    }

    /// What is over when it is seen: nothing can be judged while the ledger is out, and a clock jumps at once.
    fn heed_outage(&mut self) {
        let out = self.seen.ledger_out;
        let out = out.filter(|at| self.next.last_fault.is_none_or(|known| known < *at));
        let turned = self.seen.clock_turned;
        let turned = turned.filter(|at| self.next.clock_turned != Some(*at));
        if turned.is_some() {
            self.next.clock_turned = turned;
        }
        // By a clock that has turned only the present is known.
        if let Some(at) = turned.map(|_| self.now).or(out) {
            self.next.soak_since = None;
            self.next.last_fault = Some(at);
        }
    }

    fn heed_pause(&mut self) {
        let paused = self.seen.control.state == Wish::Paused;
        if paused != self.next.paused {
            self.next.paused = paused;
            self.notes.push(if paused { Note::Paused } else { Note::Continued });
        }
    }

    /// Takes an approval, once; one for a plan that has changed since is not taken.
    fn approve(&mut self) {
        let Control {
            through_wave,
            plan_hash,
            ..
        } = self.seen.control;
        let given = (through_wave, plan_hash);
        if self
            .next
            .spent
            .as_ref()
            .is_some_and(|(wave, hash)| (*wave, hash.as_str()) != given)
        {
            self.next.spent = None;
        }
        if through_wave <= self.next.approved {
            return;
        }
        if self.next.spent.is_some() {
            let why = "the approval was given before the breach; remove it, look at the wave, and give it again";
            self.refused = Some(why.to_owned());
            return;
        }
        if !plan_hash.is_empty() && plan_hash != self.plan.hash {
            self.refused = Some(format!(
                "the approval is for plan {}, and the plan is {} now; look at it again",
                short(plan_hash),
                short(&self.plan.hash)
            ));
        } else if through_wave <= self.next.wave {
            self.refused = Some(format!(
                "the approval is through wave {through_wave}, which is past; the present one is wave {}",
                self.next.wave + 1
            ));
        } else if through_wave as usize > self.plan.waves.len() {
            self.refused = Some(format!("there are {} waves only", self.plan.waves.len()));
        } else {
            self.next.approved = through_wave;
            self.notes.push(Note::Approved(through_wave));
        }
    }

    /// What a person answered to a breach, or asked to be tried again. The words are carried out once.
    fn answered(&mut self) -> Option<Verdict> {
        // Devices on their way back are not called off halfway.
        if self.next.breach.as_ref().is_some_and(|breach| breach.rolling_back) {
            return None;
        }
        let Control {
            resume, retry_failed, ..
        } = self.seen.control;
        let resumes = !resume.is_empty() && resume != self.next.resumed;
        let retries = !retry_failed.is_empty() && retry_failed != self.next.retried;
        if !resumes && !retries {
            return None;
        }
        let breached = self.next.breach.take().is_some();
        if resumes {
            resume.clone_into(&mut self.next.resumed);
            self.notes.push(Note::Resumed(resume.to_owned()));
        }
        if retries {
            retry_failed.clone_into(&mut self.next.retried);
            self.notes.push(Note::Retried(retry_failed.to_owned()));
        }
        if retries || breached {
            self.write_off(!retries, breached);
        }
        if breached {
            self.actions.push(Action::ClearTemplate);
            // The wave must prove itself anew, and be approved anew.
            self.next.approved = self.next.approved.min(self.next.wave);
            let Control {
                through_wave,
                plan_hash,
                ..
            } = self.seen.control;
            self.next.spent = (through_wave > self.next.approved).then(|| (through_wave, plan_hash.to_owned()));
        }
        if breached || retries {
            self.next.soak_since = None;
            self.actions.push(Action::Retry {
                through_wave: self.next.wave,
                failed: retries,
            });
            // The counts are those of before. Whoever asks for a pause as well gets that first.
            let running = (Phase::Running, Some(Waiting::Devices));
            return Some(self.held().unwrap_or(running));
        }
        None
    }

    /// A person asks for what a breach with `onBreach: Rollback` does, whatever the strategy says; once for each word. What a
    /// compromised CA has issued is never restored.
    fn send_back(&mut self) {
        let word = self.seen.control.rollback;
        if word.is_empty() || word == self.next.sent_back {
            return;
        }
        word.clone_into(&mut self.next.sent_back);
        if self.strategy.emergency || self.next.breach.as_ref().is_some_and(|breach| breach.rolling_back) {
            return;
        }
        self.notes.push(Note::SentBack(word.to_owned()));
        // Where the run has stopped already, the wave in breach is meant.
        let stopped = self.next.breach.take();
        let wave = stopped.as_ref().map_or(self.next.wave, |breach| breach.wave);
        let before = stopped.map_or_else(String::new, |breach| format!("; before that: {}", breach.detail));
        self.next.breach = Some(Breach {
            wave,
            at: self.now,
            cause: BreachCause::Person,
            detail: format!("a person sent it back: {word}{before}"),
            rolling_back: true,
        });
        self.next.soak_since = None;
        self.actions.push(Action::BlockTemplate);
    }

    /// Writes off what happened so far: `failed` where those devices are not tried again, `lost` where that was the breach,
    /// as nobody can put a device in line that is not there.
    fn write_off(&mut self, failed: bool, lost: bool) {
        let begun = self.seen.waves.iter().take(self.next.wave as usize + 1);
        let before = std::mem::take(&mut self.next.written_off);
        self.next.written_off = begun
            .enumerate()
            .map(|(wave, counts)| WrittenOff {
                failed: if failed { counts.failures() } else { 0 },
                lost: if lost {
                    counts.vanished()
                } else {
                    before.get(wave).map_or(0, |old| old.lost)
                },
            })
            .collect();
    }

    fn look_for_breach(&mut self) {
        let mut found = breached(self.strategy, self.plan, &self.next, self.seen.waves);
        // A gate asked while we are cut off says nothing about the devices.
        if let (None, None, Gates::Bad(why)) = (&found, self.seen.fault, self.seen.gates) {
            found = Some((self.next.wave, BreachCause::Gate, why.to_owned()));
        }
        if let Some((wave, cause, detail)) = found {
            self.breach(wave, cause, detail);
        }
    }

    fn breach(&mut self, wave: u32, cause: BreachCause, detail: String) {
        let breach = Breach {
            wave,
            at: self.now,
            cause,
            detail,
            rolling_back: self.on_breach(wave) == OnBreach::Rollback,
        };
        self.next.soak_since = None;
        self.notes.push(Note::Breached(breach.clone()));
        self.actions.push(Action::BlockTemplate);
        self.next.breach = Some(breach);
    }

    fn on_breach(&self, wave: u32) -> OnBreach {
        match self.wave(wave) {
            // Going back would restore what is compromised.
            Some(_) if self.strategy.emergency => OnBreach::Pause,
            Some(wave) => wave.thresholds.on_breach,
            None => OnBreach::Pause,
        }
    }

    fn stopped(&mut self) -> Verdict {
        let Some(breach) = self.next.breach.clone() else {
            return (Phase::Breached, Some(Waiting::Person));
        };
        let answer = match breach.cause {
            BreachCause::Person => OnBreach::Rollback,
            _ => self.on_breach(breach.wave),
        };
        match answer {
            OnBreach::Pause => (Phase::Breached, Some(Waiting::Person)),
            OnBreach::Abort => self.end(Ended::Failed),
            // One that comes back late with proof of the new certificate follows the others.
            OnBreach::Rollback if breach.rolling_back || self.counts(breach.wave).confirmed > 0 => {
                self.roll_back(breach)
            }
            OnBreach::Rollback => (Phase::RolledBack, Some(Waiting::Person)),
        }
    }

    fn roll_back(&mut self, breach: Breach) -> Verdict {
        let counts = self.counts(breach.wave);
        // Those in flight end first; what they confirm goes back as well.
        if counts.confirmed > 0 {
            self.actions.push(Action::Revert { wave: breach.wave });
        }
        if counts.confirmed + counts.in_flight + counts.reverting > 0 {
            // So also for one that comes back later.
            self.next.breach = Some(Breach {
                rolling_back: true,
                ..breach
            });
            let waiting = self.held().and_then(|(_, waiting)| waiting);
            return (Phase::RollingBack, waiting.or(Some(Waiting::Devices)));
        }
        self.notes.push(Note::RolledBack(breach.wave));
        self.next.breach = Some(Breach {
            rolling_back: false,
            ..breach
        });
        (Phase::RolledBack, Some(Waiting::Person))
    }

    /// On to the next wave, if the present ones are done, soaked, well and approved.
    fn advance(&mut self) -> Verdict {
        let begun = &self.seen.waves[..self.seen.waves.len().min(self.next.wave as usize + 1)];
        let busy = begun.iter().any(|c| c.planned + c.in_flight + c.reverting > 0);
        let changed = begun.iter().map(|c| c.changed).max().unwrap_or(self.next.wave_since);
        if busy || (begun.iter().any(|c| c.offline > 0) && !self.settled(changed)) {
            self.next.soak_since = None;
            return (Phase::Running, Some(Waiting::Devices));
        }
        let (present, last) = (self.next.wave, self.is_last());
        let counts = self.counts(present);
        let could = counts.members > counts.skipped;
        // At the end there is nothing to protect any more: those that were not heard are left for later.
        if could && counts.proven() == 0 && !last {
            let mine = self.wave(present).is_some_and(|wave| wave.selector.is_empty());
            // Where the fleet as a whole is away, moving one after the other into the wave helps nobody.
            let planned = self.plan.waves.get(present as usize).map_or(0, |wave| wave.size);
            let few = counts.members < planned.saturating_mul(2).saturating_add(SUBSTITUTES);
            let forgiven = written_off(&self.next, present);
            let answered = counts.failures() <= forgiven.failed && counts.vanished() <= forgiven.lost;
            if mine && few && (counts.offline > 0 || answered) {
                self.actions.push(Action::Substitute { wave: present });
            } else if counts.offline == 0 {
                // A wave of one whose only device has failed is within any budget, and proves nothing.
                let detail = "no device of the wave has proven the new certificate, and none is left that could";
                self.breach(present, BreachCause::Success, detail.to_owned());
                return self.stopped();
            }
            return (Phase::Running, Some(Waiting::Proof));
        }
        let soak = self.wave(present).map_or(0, |wave| wave.soak);
        if could && !self.strategy.emergency {
            // What changed in the future did so by a clock that was put right since, and then the soak began anew.
            let unchanged = |since: Millis| since >= changed || changed > self.now;
            let since = match self.next.soak_since {
                Some(since) if unchanged(since) && since <= self.now => since,
                _ => self.now,
            };
            let begins = self.next.soak_since.replace(since) != Some(since);
            if self.now - since < soak {
                return (Phase::Soaking, Some(Waiting::Soak(since.saturating_add(soak))));
            }
            // What gates have said so far was said of a wave under way.
            if begins && !self.strategy.gates.is_empty() {
                return unanswered();
            }
        }
        if could && self.seen.gates == Gates::Pending {
            return unanswered();
        }
        if last {
            return self.end(Ended::Complete);
        }
        let approval = self.wave(present).is_some_and(|wave| wave.approval);
        if approval && could && self.next.approved <= present {
            return (Phase::WaitingForApproval, Some(Waiting::Approval));
        }
        self.next.wave += 1;
        self.next.wave_since = self.now;
        self.next.soak_since = None;
        self.next.online_before = Some(self.seen.online);
        self.notes.push(Note::WaveBegan(self.next.wave));
        (Phase::Running, Some(Waiting::Devices))
    }

    /// Whether whoever is silent has had the time to be heard.
    fn settled(&self, changed: Millis) -> bool {
        // A clock that was set back must not keep anybody waiting.
        let since = |at: Millis, long: Millis| at > self.now || self.now - at >= long;
        let back = self.strategy.job.offline_after.clamp(SETTLE, RETURN);
        since(changed, SETTLE) && self.next.last_fault.is_none_or(|at| since(at, back))
    }

    fn end(&mut self, ended: Ended) -> Verdict {
        self.next.ended = Some(ended);
        self.notes.push(Note::Ended(ended));
        if ended == Ended::Complete && self.seen.waves.iter().any(|counts| counts.proven() > 0) {
            self.actions.push(Action::ClearTemplate);
        }
        (over(ended), None)
    }

    fn is_last(&self) -> bool {
        self.next.wave as usize + 1 >= self.plan.waves.len()
    }

    fn wave(&self, number: u32) -> Option<&Wave> {
        self.strategy.waves.get(number as usize)
    }

    fn counts(&self, number: u32) -> WaveCounts {
        self.seen.waves.get(number as usize).copied().unwrap_or_default()
    }
}

fn unanswered() -> Verdict {
    let why = "a gate has not answered since the wave was done";
    (Phase::Soaking, Some(Waiting::Gates(why.to_owned())))
}

fn over(ended: Ended) -> Phase {
    match ended {
        Ended::Complete => Phase::Complete,
        Ended::Failed => Phase::Failed,
        Ended::Aborted => Phase::Aborted,
    }
}

fn written_off(run: &Run, wave: u32) -> WrittenOff {
    run.written_off.get(wave as usize).copied().unwrap_or_default()
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
