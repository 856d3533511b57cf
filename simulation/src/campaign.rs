//! Rotations of the whole fleet, one after the other, or one; and the person who approves waves and answers breaches.

use anyhow::bail;
use certwave_protocol::ids::Fingerprint;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::api::Key;
use crate::mutant::Mutant;
use crate::os;
use crate::rollout::{self, OnBreach, Rollout, WAVES};
use crate::standing;
use crate::world::{Extent, LOOK, NAMESPACE, World, in_flight};

/// How often a person who may do something does it: looks of a thousand.
const PROMPT: u32 = 300;
/// The same, for taking an approval back and giving it again.
const IMPATIENT: u32 = 30;
/// How often a person approves all waves at once: of a thousand approvals.
const GENEROUS: u32 = 700;
/// How long devices may take to go back when nothing goes wrong any more, milliseconds.
const BACK: i64 = 120_000;

/// See the module.
pub struct Campaign {
    random: StdRng,
    mutant: Option<Mutant>,
    extent: Extent,
    rounds: usize,
    rollout: Rollout,
    /// What each device started from before the present Rotation.
    before: Vec<Option<Fingerprint>>,
    /// Answers that were given.
    answered: usize,
    /// The breach that was answered last.
    breach: Value,
    /// Since when devices are back, as the operator says, in fair weather.
    back: Option<i64>,
}

impl Campaign {
    /// One that has not begun.
    pub fn new(random: &mut StdRng, extent: Extent, devices: usize, mutant: Option<Mutant>) -> Self {
        Self {
            rollout: Rollout::draw(random, devices, in_flight(devices)),
            random: StdRng::seed_from_u64(random.next_u64()),
            mutant,
            extent,
            rounds: 0,
            before: Vec::new(),
            answered: 0,
            breach: Value::Null,
            back: None,
        }
    }

    /// The Rotation that was begun last.
    fn name(&self) -> String {
        format!("round-{}", self.rounds)
    }

    /// Begins the next one where the one before is over; answers for it where it is not.
    ///
    /// # Errors
    /// When it cannot be created or changed.
    pub fn go_on(&mut self, world: &World) -> anyhow::Result<()> {
        if self.rounds > 0 {
            if world.over(&self.name()).is_none() {
                return self.answer(world, false);
            }
            if self.extent == Extent::Brief {
                return Ok(());
            }
            self.mend(world);
            // What is left of the one before begins late, and cannot be told from what this one begins.
            self.rollout = Rollout::plain(self.rollout.in_flight);
        }
        self.rounds += 1;
        self.before = world.certificates();
        if let Some(strict) = self.strict() {
            world.units[strict.broken].shut_trials(true);
        }
        world.rotate(&self.name(), &self.rollout, self.mutant)
    }

    /// Brings it to its end when nothing goes wrong any more.
    ///
    /// # Errors
    /// When it does not come to one, or to a wrong one.
    pub async fn settle(&mut self, world: &World) -> anyhow::Result<()> {
        let end = os::elapsed_ms() + 900_000;
        let name = self.name();
        let phase = loop {
            world.keep_running();
            if let Some(phase) = world.over(&name) {
                break phase;
            }
            if os::elapsed_ms() > end {
                bail!(
                    "the Rotation {name} did not end; it is {}",
                    standing::unfinished(world, &name).await
                );
            }
            self.answer(world, true)?;
            tokio::time::sleep(LOOK).await;
        };
        self.mend(world);
        world
            .ground
            .history
            .say(format!("the Rotation {name} is over: {phase}"));
        let aborts = self.strict().is_some_and(|strict| strict.on_breach == OnBreach::Abort);
        if phase != "Complete" && !(aborts && phase == "Failed") {
            bail!("the Rotation {name} has ended as {phase}");
        }
        Ok(())
    }

    fn strict(&self) -> Option<rollout::Strict> {
        self.rollout.stages.and_then(|stages| stages.strict)
    }

    /// The broken device is repaired.
    fn mend(&self, world: &World) {
        if let Some(strict) = self.strict() {
            world.units[strict.broken].shut_trials(false);
        }
    }

    fn key(&self) -> Key {
        Key::new("rotations", NAMESPACE, &self.name())
    }

    fn answer(&mut self, world: &World, fair: bool) -> anyhow::Result<()> {
        let Some(rotation) = world.ground.api.get(&self.key()) else {
            return Ok(());
        };
        let status = &rotation["status"];
        match status["phase"].as_str() {
            Some("WaitingForApproval") => self.approve(world, &rotation),
            Some("Breached") if self.chance(PROMPT) => self.resume(world, status, fair),
            Some("RolledBack") if (!fair || self.are_back(world, status)) && self.chance(PROMPT) => {
                self.resume(world, status, fair)
            }
            _ => Ok(()),
        }
    }

    fn chance(&mut self, of_a_thousand: u32) -> bool {
        self.random.random_range(0..1000) < of_a_thousand
    }

    fn approve(&mut self, world: &World, rotation: &Value) -> anyhow::Result<()> {
        let Some(through) = wave(&rotation["status"]) else {
            return Ok(());
        };
        let given = rotation
            .pointer("/spec/control/approval/throughWave")
            .and_then(Value::as_u64);
        if given.is_some_and(|given| given >= through as u64) {
            // One that was given before a breach does not count: the operator asks to take it back.
            return if self.chance(IMPATIENT) {
                self.control(world, "takes the approval back", &json!({ "approval": null }))
            } else {
                Ok(())
            };
        }
        if !self.chance(PROMPT) {
            return Ok(());
        }
        let through = if self.chance(GENEROUS) { WAVES } else { through };
        world.ground.judge.approve(through);
        self.control(
            world,
            &format!("approves wave {through}"),
            &json!({ "approval": { "throughWave": through } }),
        )
    }

    fn resume(&mut self, world: &World, status: &Value, fair: bool) -> anyhow::Result<()> {
        if fair || self.chance(500) {
            self.mend(world);
        }
        self.answered += 1;
        self.back = None;
        let answer = ["resume", "retryFailed"][self.random.random_range(0..2)];
        // Of a second answer to the same breach the operator may take only the first.
        let first = self.breach != status["breach"];
        self.breach = status["breach"].clone();
        let present = wave(status).filter(|_| first);
        world.ground.judge.forgive(present.map(|wave| wave - 1));
        self.control(
            world,
            &format!("answers the breach: {answer}"),
            &json!({ answer: format!("ticket-{}", self.answered) }),
        )
    }

    /// Whether all devices of the wave in breach start from the certificates that they had, but for those of whom the operator says that they
    /// do not.
    fn are_back(&mut self, world: &World, status: &Value) -> bool {
        let named: Vec<&str> = status["notRolledBack"]
            .as_array()
            .map(|all| all.iter().filter_map(|one| one["deviceId"].as_str()).collect())
            .unwrap_or_default();
        let waves = status["waves"].as_array();
        let wave = waves.and_then(|waves| waves.iter().position(|wave| wave["name"] == status["breach"]["wave"]));
        let stays = world.units.iter().zip(&self.before).find(|(unit, before)| {
            Some(rollout::wave(unit.number)) == wave
                && !world.ground.judge.is_barred(unit.number)
                && unit.starts_from() != **before
                && !named.contains(&unit.id.as_str())
        });
        let Some((unit, _)) = stays else { return true };
        let since = *self.back.get_or_insert_with(os::elapsed_ms);
        if os::elapsed_ms() - since > BACK {
            world.ground.history.breach(format!(
                "d{} did not go back, and the Rotation does not say so",
                unit.number
            ));
            return true;
        }
        false
    }

    fn control(&self, world: &World, what: &str, control: &Value) -> anyhow::Result<()> {
        world.ground.history.say(format!("a person {what}"));
        world.change(&self.key(), &json!({ "spec": { "control": control } }))
    }
}

/// The number of the present wave, from 1.
fn wave(status: &Value) -> Option<usize> {
    let (wave, _) = status["progress"].as_str()?.split_once('/')?;
    wave.parse().ok().filter(|wave| *wave > 0)
}
