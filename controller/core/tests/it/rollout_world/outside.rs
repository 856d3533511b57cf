//! What people, clocks, our own side and new devices do.

use super::*;

impl World {
    pub(super) fn outside(&mut self, deed: &Deed) {
        match *deed {
            Deed::Wish(wish) => self.control.wish = wish,
            Deed::Approve(wave) => {
                self.control.approved = wave;
                self.control.other_plan = false;
            }
            Deed::ApproveOther => self.control.other_plan = true,
            Deed::Resume => self.control.resume += 1,
            Deed::Retry => self.control.retry += 1,
            Deed::SendBack => self.control.rollback += 1,
            Deed::Fault(on) => self.fault = on,
            Deed::Preempt(on) => self.preempted = on,
            Deed::Gate(says) => self.gate = says,
            Deed::Restart => {
                // The ledger remembers how many, not when.
                let without = certwave_core::rollout::strategy::Limits {
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

    pub(super) fn join(&mut self, count: u8) {
        if self.run.ended.is_some() {
            return;
        }
        let newcomer = |n: u8| crate::rollout_fleets::Device {
            not_after: START + 20 * 86_400 + i64::from(n) * 3600,
            site: u32::from(n % 4),
            canary: n.is_multiple_of(2),
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
}
