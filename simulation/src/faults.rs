//! What goes wrong, when, and for how long: drawn from the seed before it begins.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::api::Key;
use crate::campaign::Campaign;
use crate::os;
use crate::person::Person;
use crate::replica::NAMESPACE as LEASES;
use crate::weather::{Condition, Place};
use crate::world::{Extent, World};

/// How often somebody looks what is to begin or end, milliseconds.
const TICK: u64 = 250;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A replica is killed, and started again at the end.
    Killed(usize),
    /// A replica is shut down, and started again at the end.
    ShutDown(usize),
    /// A way lets nothing through.
    Cut(Way),
    /// On a way things fail, and answers are lost.
    Flaky(Way),
    /// A way takes long.
    Slow(Way),
    /// The API server refuses with 409, 429, 500, 503 and 504.
    Refusing,
    /// Watches show what is old.
    Stale,
    /// The API server forgets what happened: 410.
    Compacted,
    /// Somebody else has a Lease.
    LeaseTaken(bool),
    /// The broker is down.
    BrokerDown,
    /// Messages are lost, and come twice.
    Mislaid,
    /// A connection breaks.
    Dropped,
    /// Clocks are off by so many milliseconds.
    Skewed(i64, Clocks),
    /// A device loses power after so many instructions.
    PowerCut(usize, u32),
}

/// Whose clocks are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    /// The controllers' alone.
    Ours,
    /// The API server's alone.
    Theirs,
    /// Both, as where both run on one machine.
    Both,
}

/// A way that faults are on. Replicas and devices are counted modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A replica's to the API server.
    Api(usize),
    /// A replica's to the ledger.
    Ledger(usize),
    /// A replica's to the broker.
    Broker(usize),
    /// A device's to the broker.
    Device(usize),
    /// The companion's to the CRLs.
    Crls,
}

struct Planned {
    fault: Fault,
    /// Milliseconds from the beginning.
    from: i64,
    until: i64,
}

/// See the module.
pub struct Faults {
    all: Vec<Planned>,
    end: i64,
}

impl Faults {
    /// Draws them.
    pub fn plan(random: &mut StdRng, extent: Extent) -> Self {
        let (end, most) = match extent {
            // Little longer than a Rotation: what goes wrong when it is over shows less.
            Extent::Brief => (random.random_range(2_000..7_000), 8),
            Extent::Long => (random.random_range(15_000..60_000), 16),
        };
        // A swarm: only some kinds in each run, so that those that hide others are missing at times.
        let kinds: Vec<u32> = (0..KINDS).filter(|_| random.random_bool(0.35)).collect();
        let count = random.random_range(2..most);
        let mut all: Vec<Planned> = (0..count)
            .filter_map(|_| {
                let kind = *kinds.get(random.random_range(0..kinds.len().max(1)))?;
                let from = random.random_range(0..end);
                let lasts = if random.random_bool(0.2) { 45_000 } else { 10_000 };
                let fault = draw(kind, random);
                let until = from + random.random_range(200..lasts);
                Some(Planned {
                    fault,
                    from,
                    until: until.min(end),
                })
            })
            .collect();
        all.sort_by_key(|planned| planned.from);
        Self { all, end }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Lives through them; a person acts meanwhile.
    ///
    /// # Errors
    /// When what a person changes is gone.
    pub async fn happen(
        &self,
        world: &World,
        random: &mut StdRng,
        person: &mut Person,
        campaign: &mut Campaign,
    ) -> anyhow::Result<()> {
        let start = os::elapsed_ms();
        let mut begun = vec![false; self.all.len()];
        let mut ended = vec![false; self.all.len()];
        loop {
            let now = os::elapsed_ms() - start;
            for (number, planned) in self.all.iter().enumerate() {
                if !begun[number] && planned.from <= now {
                    begun[number] = true;
                    world.ground.history.say(format!("begins: {:?}", planned.fault));
                    begin(planned.fault, world, random);
                }
                if !ended[number] && planned.until <= now {
                    ended[number] = true;
                    world.ground.history.say(format!("ends: {:?}", planned.fault));
                    end(planned.fault, world);
                }
            }
            campaign.go_on(world)?;
            person.act(world)?;
            // Whoever has ended by itself is started again, unless somebody keeps it down.
            for (number, replica) in world.replicas.iter().enumerate() {
                let down = self.all.iter().any(|planned| {
                    let whose = match planned.fault {
                        Fault::Killed(whose) | Fault::ShutDown(whose) => whose % world.replicas.len() == number,
                        _ => false,
                    };
                    whose && (planned.from..planned.until).contains(&now)
                });
                if !down {
                    replica.keep()?;
                }
            }
            if now >= self.end {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(TICK)).await;
        }
    }
}

const DAY: i64 = 86_400_000;
/// Of the fleet's certificates, milliseconds.
const VALIDITY: i64 = 30 * DAY;
/// By how much clocks are off, milliseconds: less than is tolerated and more, past the end of certificates, of CRLs and of their months.
const SKEWS: [i64; 9] = [
    -8 * DAY,
    -7_200_000,
    -400_000,
    -2000,
    2000,
    250_000,
    7_200_000,
    8 * DAY,
    400 * DAY,
];

/// Kinds of faults that [`draw`] knows.
const KINDS: u32 = 16;

fn draw(kind: u32, random: &mut StdRng) -> Fault {
    let replica = random.random_range(0..2);
    let device = random.random_range(0..1000);
    let way = match random.random_range(0..5) {
        0 => Way::Api(replica),
        1 => Way::Ledger(replica),
        2 => Way::Broker(replica),
        3 => Way::Device(device),
        _ => Way::Crls,
    };
    match kind {
        0 => Fault::Killed(replica),
        1 => Fault::ShutDown(replica),
        2 => Fault::Cut(Way::Api(replica)),
        3 => Fault::Cut(way),
        4 => Fault::Flaky(way),
        5 => Fault::Slow(way),
        6 => Fault::Refusing,
        7 => Fault::Stale,
        8 => Fault::Compacted,
        9 => Fault::LeaseTaken(random.random_bool(0.5)),
        10 => Fault::BrokerDown,
        11 => Fault::Mislaid,
        12 => Fault::Dropped,
        13 => {
            let by = SKEWS[random.random_range(0..SKEWS.len())];
            match [Clocks::Ours, Clocks::Ours, Clocks::Theirs, Clocks::Both][random.random_range(0..4)] {
                // Who goes by it that all certificates have ended has nothing to revoke.
                Clocks::Both if by > VALIDITY => Fault::Skewed(by % VALIDITY, Clocks::Both),
                clocks => Fault::Skewed(by, clocks),
            }
        }
        14 => Fault::Flaky(Way::Ledger(replica)),
        _ => Fault::PowerCut(device, random.random_range(0..40)),
    }
}

fn place(way: Way, world: &World) -> Place {
    match way {
        Way::Api(replica) => Place::Api(replica % world.replicas.len()),
        Way::Ledger(replica) => Place::Ledger(replica % world.replicas.len()),
        Way::Broker(replica) => Place::Broker(replica % world.replicas.len()),
        Way::Device(device) => Place::Device(device % world.units.len()),
        Way::Crls => Place::Crls,
    }
}

fn begin(fault: Fault, world: &World, random: &mut StdRng) {
    let ground = &world.ground;
    match fault {
        Fault::Killed(replica) => world.replicas[replica % world.replicas.len()].kill(),
        Fault::ShutDown(replica) => world.replicas[replica % world.replicas.len()].stop(),
        Fault::Cut(way) => ground.weather.change(place(way, world), |way| way.cut = true),
        Fault::Flaky(way) => ground
            .weather
            .change(place(way, world), |way| (way.fail, way.lose) = (150, 150)),
        Fault::Slow(way) => ground.weather.change(place(way, world), |way| way.slow = 3000),
        Fault::Refusing => ground.api.misbehave(|faults| faults.refuse = 300),
        Fault::Stale => ground.api.misbehave(|faults| faults.stale = 8000),
        Fault::Compacted => ground.api.compact(),
        Fault::LeaseTaken(controller) => {
            let name = if controller {
                "certwave-controller"
            } else {
                "certwave-broker-main"
            };
            let theirs = json!({ "spec": { "holderIdentity": "a thief", "leaseDurationSeconds": 15 } });
            // Where there is none yet nobody can take it.
            let _ = ground.api.merge(&Key::new("leases", LEASES, name), &theirs);
        }
        Fault::BrokerDown => ground.broker.switch(false),
        Fault::Mislaid => ground.broker.mislay(100, 60),
        Fault::Dropped => ground.broker.drop_any(random),
        Fault::Skewed(by, clocks) => {
            match clocks {
                Clocks::Ours => os::set_skew(by, 0),
                Clocks::Theirs => os::set_skew(0, by),
                Clocks::Both => os::set_skew(by, by),
            }
            ground.judge.clock_jumps();
        }
        Fault::PowerCut(device, instructions) => world.units[device % world.units.len()].cut_power(instructions),
    }
}

fn end(fault: Fault, world: &World) {
    let ground = &world.ground;
    match fault {
        Fault::Cut(way) | Fault::Flaky(way) | Fault::Slow(way) => {
            ground
                .weather
                .change(place(way, world), |way| *way = Condition::default());
        }
        Fault::Refusing => ground.api.misbehave(|faults| faults.refuse = 0),
        Fault::Stale => ground.api.misbehave(|faults| faults.stale = 0),
        Fault::BrokerDown => ground.broker.switch(true),
        Fault::Mislaid => ground.broker.mislay(0, 0),
        Fault::Skewed(..) => os::set_skew(0, 0),
        Fault::Killed(_)
        | Fault::ShutDown(_)
        | Fault::Compacted
        | Fault::LeaseTaken(_)
        | Fault::Dropped
        | Fault::PowerCut(..) => {}
    }
}
