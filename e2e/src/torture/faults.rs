//! What goes wrong: each fault, how it begins and how it ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::rig::{Rig, SITES};
use crate::process::Process;
use crate::proxy::{Requests, Share};

/// How late what is said to a far database arrives, one way.
const FAR: Duration = Duration::from_millis(20);
/// Where the controller's clock jumps to.
const JUMPS: [&str; 5] = ["-1h", "+1h", "+8d", "-3d", "+400d"];
/// Long enough for devices to start again and get somewhere.
const CALM: std::ops::Range<u64> = 8_000..16_000;
/// Longer than the Lease holds.
const LONG: std::ops::Range<u64> = 16_000..24_000;

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The controller dies by SIGKILL.
    ControllerKilled,
    /// The controller is told to end.
    ControllerEnded,
    /// The controller stands still: SIGSTOP.
    ControllerHangs,
    /// The controller's clock jumps, while it runs.
    ClockJumps(&'static str),
    /// Both Mosquittos die by SIGKILL.
    BrokerKilled,
    /// Both Mosquittos stand still.
    BrokerHangs,
    /// What keeps the broker's CRLs dies.
    CompanionKilled,
    /// The API server dies and is started again; watches break.
    ApiServerKilled,
    /// The controller cannot reach the API server.
    ApiServerGone,
    /// The API server takes connections from the controller and says nothing.
    ApiServerHangs,
    /// Every third write is refused with this code, and watches expire.
    ApiServerRefuses(u16),
    /// The disk is full, or the database server dies.
    LedgerGone,
    /// The database is far away.
    LedgerFar,
    /// The line to the database breaks.
    LedgerCut,
    /// All devices' connections break.
    DevicesCut,
    /// What devices say does not arrive, and nobody tells them.
    DevicesHang,
    /// Whoever speaks to a device is heard half a second later.
    DevicesFar,
    /// The devices of one site lose power.
    PowerCut(usize),
}

/// What a fault touches: two of the same do not come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The controller's process.
    Controller,
    /// Its clock.
    Clock,
    /// Mosquitto.
    Broker,
    /// What runs beside it.
    Companion,
    /// The API server, and the way to it.
    Api,
    /// What the ledger is kept in.
    Ledger,
    /// The devices' line.
    Devices,
    /// The devices.
    Sites,
}

impl Fault {
    /// What it touches.
    pub const fn part(&self) -> Part {
        match self {
            Self::ControllerKilled | Self::ControllerEnded | Self::ControllerHangs => Part::Controller,
            Self::ClockJumps(_) => Part::Clock,
            Self::BrokerKilled | Self::BrokerHangs => Part::Broker,
            Self::CompanionKilled => Part::Companion,
            Self::ApiServerKilled | Self::ApiServerGone | Self::ApiServerHangs | Self::ApiServerRefuses(_) => Part::Api,
            Self::LedgerGone | Self::LedgerFar | Self::LedgerCut => Part::Ledger,
            Self::DevicesCut | Self::DevicesHang | Self::DevicesFar => Part::Devices,
            Self::PowerCut(_) => Part::Sites,
        }
    }

    /// Whether somebody died by SIGKILL or without power.
    pub const fn kills(&self) -> bool {
        matches!(
            self,
            Self::ControllerKilled
                | Self::BrokerKilled
                | Self::CompanionKilled
                | Self::ApiServerKilled
                | Self::LedgerGone
                | Self::PowerCut(_)
        )
    }

    async fn begin(&self, rig: &mut Rig) -> Result<()> {
        match self {
            Self::ControllerKilled => rig.kill_controller(),
            Self::ControllerEnded => rig.stop_controller(),
            Self::ControllerHangs => rig.controller_if_running(Process::pause),
            Self::ClockJumps(off) => rig.set_clock(off),
            Self::BrokerKilled => {
                rig.stack.broker.kill();
                Ok(())
            }
            Self::BrokerHangs => rig.stack.broker.pause(),
            Self::CompanionKilled => {
                rig.stack.companion.as_mut().context("no companion")?.kill();
                Ok(())
            }
            Self::ApiServerKilled => {
                let api = Arc::get_mut(&mut rig.stack.api).context("somebody else uses the API server")?;
                api.restart().await
            }
            Self::ApiServerGone => {
                rig.proxy.cut();
                Ok(())
            }
            Self::ApiServerHangs => {
                rig.proxy.hang();
                Ok(())
            }
            Self::ApiServerRefuses(code) => {
                let code = StatusCode::from_u16(*code)?;
                let refuse = |method| rig.proxy.refuse(Requests::to(method, "/"), Share::Each(3), code);
                rig.refusals = [Method::PATCH, Method::PUT, Method::POST].map(refuse).into();
                rig.proxy.expire_watches();
                Ok(())
            }
            Self::LedgerGone => rig.store.take_away(),
            Self::LedgerFar | Self::LedgerCut => {
                let line = rig.store.line().context("a file has no line")?;
                if *self == Self::LedgerCut {
                    line.cut();
                } else {
                    line.slow(FAR);
                }
                Ok(())
            }
            Self::DevicesCut => {
                rig.line.cut();
                Ok(())
            }
            Self::DevicesHang => {
                rig.line.hang();
                Ok(())
            }
            Self::DevicesFar => {
                rig.line.slow(Duration::from_millis(500));
                Ok(())
            }
            Self::PowerCut(site) => {
                rig.cut_power(*site);
                Ok(())
            }
        }
    }

    async fn end(&self, rig: &mut Rig) -> Result<()> {
        match self {
            Self::ControllerKilled | Self::ControllerEnded => rig.let_start(),
            Self::ControllerHangs => rig.controller_if_running(Process::resume),
            Self::ClockJumps(_) => rig.set_clock("+0"),
            Self::BrokerKilled => rig.stack.broker.start().await,
            Self::BrokerHangs => rig.stack.broker.resume(),
            Self::CompanionKilled => rig.stack.companion.as_mut().context("no companion")?.start(),
            Self::ApiServerKilled => Ok(()),
            Self::ApiServerGone | Self::ApiServerHangs => {
                rig.proxy.mend();
                Ok(())
            }
            Self::ApiServerRefuses(_) => {
                rig.refusals.clear();
                Ok(())
            }
            Self::LedgerGone => rig.store.give_back(),
            Self::LedgerFar | Self::LedgerCut => {
                rig.store.line().context("a file has no line")?.mend();
                Ok(())
            }
            Self::DevicesCut | Self::DevicesHang | Self::DevicesFar => {
                rig.line.mend();
                Ok(())
            }
            Self::PowerCut(site) => rig.switch_on(*site),
        }
    }

    /// Begins it.
    pub(super) async fn inject(&self, rig: &mut Rig) -> Result<()> {
        self.begin(rig).await.with_context(|| format!("begin: {self}"))
    }

    /// Ends it.
    pub(super) async fn undo(&self, rig: &mut Rig) -> Result<()> {
        self.end(rig).await.with_context(|| format!("end: {self}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControllerKilled => f.write_str("controller killed"),
            Self::ControllerEnded => f.write_str("controller told to end"),
            Self::ControllerHangs => f.write_str("controller hangs"),
            Self::ClockJumps(off) => write!(f, "clock jumps {off}"),
            Self::BrokerKilled => f.write_str("broker killed"),
            Self::BrokerHangs => f.write_str("broker hangs"),
            Self::CompanionKilled => f.write_str("companion killed"),
            Self::ApiServerKilled => f.write_str("API server killed"),
            Self::ApiServerGone => f.write_str("API server out of reach"),
            Self::ApiServerHangs => f.write_str("API server hangs"),
            Self::ApiServerRefuses(code) => write!(f, "API server refuses ({code}), watches expire"),
            Self::LedgerGone => f.write_str("ledger's disk full or database killed"),
            Self::LedgerFar => f.write_str("database far away"),
            Self::LedgerCut => f.write_str("line to the database cut"),
            Self::DevicesCut => f.write_str("devices' connections cut"),
            Self::DevicesHang => f.write_str("devices' connections hang"),
            Self::DevicesFar => f.write_str("devices far away"),
            Self::PowerCut(site) => write!(f, "power cut at site {site}"),
        }
    }
}

/// What is there to break.
#[derive(Debug, Clone, Copy)]
pub struct Breakable {
    /// The ledger can be taken away.
    pub ledger: bool,
    /// There is a line to the ledger.
    pub ledger_line: bool,
    /// The API server is ours.
    pub api: bool,
}

/// Faults in an order that follows from a seed: one of each part first, then each before any comes again.
pub struct Deck {
    random: StdRng,
    left: Vec<Fault>,
    /// Of `left`, those that are of parts that were not touched yet.
    untouched: usize,
    all: Breakable,
    /// Whether some faults last for longer than the Lease.
    long: bool,
}

impl Deck {
    /// A new one.
    pub fn new(random: StdRng, all: Breakable, long: bool) -> Self {
        let mut deck = Self {
            random,
            left: Vec::new(),
            untouched: 0,
            all,
            long,
        };
        deck.open();
        deck
    }

    /// Puts one of each part on top.
    fn open(&mut self) {
        let (mut first, mut others): (Vec<Fault>, Vec<Fault>) = (Vec::new(), Vec::new());
        for fault in self.shuffled() {
            let known = first.iter().any(|other| other.part() == fault.part());
            if known { &mut others } else { &mut first }.push(fault);
        }
        self.untouched = first.len();
        others.extend(first);
        self.left = others;
    }

    /// Parts that were not touched yet.
    pub fn untouched(&self) -> usize {
        self.untouched
    }

    /// Whether there are any.
    pub fn is_opening(&self) -> bool {
        self.untouched > 0
    }

    /// The faults that come together next: one or two, of different parts. In a short run two, until each part was touched.
    pub fn together(&mut self) -> Vec<Fault> {
        let pairs = !self.long && self.is_opening();
        let mut together = vec![self.draw()];
        if pairs || self.random.random_bool(0.4) {
            let second = self.draw();
            if together.iter().all(|fault| fault.part() != second.part()) {
                together.push(second);
            } else {
                self.left.insert(0, second);
            }
        }
        together
    }

    /// How long they last.
    pub fn lasts(&mut self) -> Duration {
        let range = if self.long && self.random.random_bool(0.15) {
            LONG
        } else {
            300..5_000
        };
        Duration::from_millis(self.random.random_range(range))
    }

    /// How long nothing happens after them.
    ///
    /// After a fault of ours the controller waits for devices to come back before it goes on: where faults follow too soon, Rotations
    /// stand still, and nothing is tried.
    pub fn rests(&mut self) -> Duration {
        let range = if self.random.random_bool(0.3) { CALM } else { 500..5_000 };
        Duration::from_millis(self.random.random_range(range))
    }

    fn draw(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = self.shuffled();
        }
        self.untouched = self.untouched.saturating_sub(1);
        self.left.pop().unwrap_or(Fault::ControllerKilled)
    }

    fn shuffled(&mut self) -> Vec<Fault> {
        let random = &mut self.random;
        let jump = JUMPS.choose(random).copied().unwrap_or(JUMPS[0]);
        let code = [409, 429, 500].choose(random).copied().unwrap_or(409);
        let mut deck = vec![
            // What is there most often in the field comes more often.
            Fault::ControllerKilled,
            Fault::ControllerKilled,
            Fault::ControllerKilled,
            Fault::ControllerEnded,
            Fault::ControllerHangs,
            Fault::ClockJumps(jump),
            Fault::BrokerKilled,
            Fault::BrokerHangs,
            Fault::CompanionKilled,
            Fault::ApiServerGone,
            Fault::ApiServerHangs,
            Fault::ApiServerRefuses(code),
            Fault::DevicesCut,
            Fault::DevicesHang,
            Fault::DevicesFar,
            Fault::PowerCut(random.random_range(0..SITES)),
            Fault::PowerCut(random.random_range(0..SITES)),
        ];
        if self.all.api {
            deck.push(Fault::ApiServerKilled);
        }
        if self.all.ledger {
            deck.extend([Fault::LedgerGone, Fault::LedgerGone]);
        }
        if self.all.ledger_line {
            deck.extend([Fault::LedgerFar, Fault::LedgerCut]);
        }
        deck.shuffle(&mut self.random);
        deck
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn deck(seed: u64) -> Deck {
        let all = Breakable {
            ledger: true,
            ledger_line: true,
            api: true,
        };
        Deck::new(StdRng::seed_from_u64(seed), all, true)
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        let course = |seed| {
            let mut deck = deck(seed);
            (0..40)
                .map(|_| (deck.together(), deck.lasts(), deck.rests()))
                .collect::<Vec<_>>()
        };
        assert_eq!(course(7), course(7));
        assert_ne!(course(7), course(8));
    }

    #[test]
    fn every_part_breaks_before_any_breaks_again_and_no_part_twice_at_once() {
        use Part::{Api, Broker, Clock, Companion, Controller, Devices, Ledger, Sites};
        for seed in 0..200 {
            let mut deck = deck(seed);
            let mut seen: Vec<Part> = Vec::new();
            while deck.is_opening() {
                let together = deck.together();
                if let [one, other] = together.as_slice() {
                    assert_ne!(one.part(), other.part());
                }
                seen.extend(together.iter().map(Fault::part));
            }
            for part in [Api, Broker, Clock, Companion, Controller, Devices, Ledger, Sites] {
                assert!(seen.contains(&part), "{part:?}");
            }
            for _ in 0..22 {
                if let [one, other] = deck.together().as_slice() {
                    assert_ne!(one.part(), other.part());
                }
            }
        }
    }
}
