//! The run itself.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::campaign::Campaign;
use super::faults::{Breakable, Deck, Fault};
use super::history::{History, Limits};
use super::rig::Rig;
use super::watch::{Watch, key_id};
use super::{Counts, Options, Outcome, judge};
use crate::tally::Certificates;

/// By then whatever was under way when the last fault ended is over: a step, a trial, and a retry of both.
const CALM: Duration = Duration::from_mins(5);
/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(50);
/// Runs of at least this length have faults that outlast the Lease.
const LONG: Duration = Duration::from_mins(3);
/// What must not have been, told at most.
const TOLD: usize = 20;

/// A run under way.
struct Run<'a> {
    rig: Rig,
    campaign: Campaign,
    began: Instant,
    counts: Counts,
    say: &'a mut dyn FnMut(&str),
}

/// Runs it; `say` is told each fault as it happens.
///
/// # Errors
/// When something is missing, or the faults cannot be made.
pub async fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let began = Instant::now();
    say(&format!(
        "seed {}: {} devices, ledger in {}, {} s of faults",
        options.seed,
        options.devices,
        options.ledger.name(),
        options.time.as_secs()
    ));
    let rig = Rig::prepare(options).await?;
    let fleet = Rig::fleet_limits(options.devices);
    let watch = Watch::begin(rig.stack.http(), key_id(&rig.stack).await?);
    let random = |stream: u64| StdRng::seed_from_u64(options.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut run = Run {
        campaign: Campaign::new(random(1), options.devices, fleet.per_minute),
        rig,
        began,
        counts: Counts::default(),
        say,
    };
    run.say("all devices have their first certificate; now things go wrong");
    let all = Breakable {
        ledger: run.rig.store.can_go(),
        ledger_line: run.rig.store.line().is_some(),
        api: run.rig.stack.api.process().is_some(),
    };
    let mut deck = Deck::new(random(2), all, options.time >= LONG);
    run.counts.breakable = deck.untouched();
    let told = run.told(options, &mut deck, &watch, fleet).await;
    let mut wrong = match told {
        Ok(wrong) => wrong,
        Err(error) => vec![format!("the run did not come to its end: {error:#}")],
    };
    wrong.truncate(TOLD);
    run.counts.seconds = began.elapsed().as_secs();
    let files = (!wrong.is_empty()).then(|| run.rig.keep());
    Ok(Outcome {
        wrong,
        counts: run.counts,
        files,
    })
}

impl Run<'_> {
    async fn told(&mut self, options: &Options, deck: &mut Deck, watch: &Watch, fleet: Limits) -> Result<Vec<String>> {
        self.torture(deck, options.time).await?;
        self.say("nothing goes wrong any more");
        let before = self.last_rotation(options.devices, fleet).await?;
        let mut wrong = self.rig.agreement(&before).await?;
        self.say("device, ledger and object were compared");
        wrong.extend(self.rig.doors().await?);
        self.say("OpenSSL and the broker have looked at each certificate");
        wrong.extend(watch.contradictions());
        let history = History {
            steps: self.rig.steps()?,
            reigns: self.campaign.reigns(),
            fleet,
            patience: Rig::patience(),
        };
        let verdict = judge::limits(&history);
        wrong.extend(verdict.breaches);
        let (serials, revoked) = (self.rig.store.serials(&self.rig.stack)?, watch.revoked());
        wrong.extend(judge::revoked_too_early(&history.steps, &serials, &revoked));
        self.counts.retired = serials.values().filter(|serial| revoked.contains_key(*serial)).count();
        wrong.extend(self.rig.audit()?);
        self.counts.rotations = self.campaign.over.len();
        self.counts.jobs = (verdict.jobs, verdict.committed);
        self.counts.in_flight = verdict.peak_in_flight;
        self.counts.at_limit = verdict.at_limit;
        self.counts.per_minute = verdict.peak_per_minute;
        self.counts.crls = watch.seen();
        self.counts.restarts = self.rig.restarts;
        let (crls, looks) = self.counts.crls;
        ensure!(crls > 0 && looks > 0, "nobody ever served a CRL");
        Ok(wrong)
    }

    async fn torture(&mut self, deck: &mut Deck, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end || deck.is_opening() {
            let (together, lasts, rests) = (deck.together(), deck.lasts(), deck.rests());
            let names: Vec<_> = together.iter().map(ToString::to_string).collect();
            self.say(&format!("{} for {:.1} s", names.join(", "), lasts.as_secs_f64()));
            for fault in &together {
                fault.inject(&mut self.rig).await?;
            }
            self.lasts(lasts).await?;
            for fault in together.iter().rev() {
                fault.undo(&mut self.rig).await?;
            }
            self.counts.faults += together.len();
            self.counts.parts.extend(together.iter().map(Fault::part));
            self.counts.kills += together.iter().filter(|fault| Fault::kills(fault)).count();
            self.lasts(rests).await?;
        }
        Ok(())
    }

    /// How long a fault lasts is part of the fault.
    async fn lasts(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.rig.keep_controller()?;
            self.rig.check_sites()?;
            self.campaign.tick(&self.rig.stack).await;
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// Waits for the Rotation that runs, and for one more that nothing goes wrong in; the certificates of before that one.
    async fn last_rotation(&mut self, devices: usize, fleet: Limits) -> Result<Certificates> {
        self.calm("the Rotation under way").await?;
        let before = self.rig.certificates().await?;
        let limits = Limits {
            in_flight: (devices / 4).max(12),
            per_minute: fleet.per_minute + devices,
        };
        ensure!(self.campaign.last(limits), "a Rotation runs");
        self.calm("the last Rotation").await?;
        Ok(before)
    }

    async fn calm(&mut self, what: &str) -> Result<()> {
        let end = Instant::now() + CALM;
        while self.campaign.is_running() {
            if Instant::now() > end {
                let name = self
                    .campaign
                    .reigns()
                    .pop()
                    .map(|reign| reign.rotation)
                    .unwrap_or_default();
                let status = self.rig.stack.rotation(&name).await?.status;
                bail!("{what} is not over: {status:?}");
            }
            self.rig.keep_controller()?;
            self.rig.check_sites()?;
            self.campaign.go_on(&self.rig.stack).await;
            tokio::time::sleep(TICK).await;
        }
        self.say(&format!("{what} is over"));
        Ok(())
    }

    fn say(&mut self, what: &str) {
        (self.say)(&format!("[{:6.1} s] {what}", self.began.elapsed().as_secs_f64()));
    }
}
