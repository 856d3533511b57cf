//! What must hold.

use super::*;

impl World {
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
            // Devices are on their way back, and our own side keeps them.
            Waiting::Devices if self.fault && last.phase == Phase::RollingBack => {}
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

    pub(super) fn check_news(&mut self, judgement: &Judgement) {
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
    pub(super) fn check_breach(&self, judgement: &Judgement) {
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

    pub(super) fn check_wave_begins(&self, wave: u32, next: &Run) {
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

    pub(super) fn check_limits(&mut self, id: usize) {
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
}
