//! Who is sent a job.

use super::*;

impl World {
    pub(super) fn doors(&self) -> Doors {
        let open = self.calendar.open(self.wall());
        Doors::new(self.wall(), &self.strategy, self.run.wave, open)
    }

    pub(super) fn serves(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.admits) && self.run.ended.is_none()
    }

    /// Those whose turn may have come, in the order of the plan: at most `limit`, of groups that are not full.
    pub(super) fn waiting(&self, doors: &Doors, limit: usize) -> Vec<usize> {
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
    pub(super) fn group(&self, id: usize) -> &str {
        let member = &self.members[id];
        match member.state {
            State::TimedOut => "its own",
            _ => &self.sites[member.site as usize],
        }
    }

    pub(super) fn admit(&mut self) {
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
                self.turn_into(*id, State::Queued);
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
            // Counted by `turn_into` as they start.
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

    pub(super) fn start(&mut self, id: usize, doors: &Doors) {
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
            self.turn_into(id, State::Sent);
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

    /// Devices to be sent back: within the slots and the groups' places, whatever windows and rate say.
    pub(super) fn send_back(&mut self) {
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
}
