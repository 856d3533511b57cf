//! A person who revokes, holds and pauses while everything goes wrong.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::api::Key;
use crate::device::name;
use crate::os;
use crate::world::{Extent, NAMESPACE, World};

/// See the module.
pub struct Person {
    device: usize,
    does: Does,
    at: i64,
    until: i64,
    done: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Nothing,
    Revokes,
    Holds,
    Pauses,
}

impl Person {
    /// What one does in such a run.
    pub fn new(random: &mut StdRng, extent: Extent, devices: usize) -> Self {
        let does = match random.random_range(0..10) {
            0..4 => Does::Revokes,
            4..7 => Does::Holds,
            7..8 => Does::Pauses,
            _ => Does::Nothing,
        };
        let (begins, lasts) = match extent {
            Extent::Brief => (4_000, 5_000),
            Extent::Long => (25_000, 30_000),
        };
        let at = os::elapsed_ms() + random.random_range(500..begins);
        Self {
            device: random.random_range(0..devices),
            does,
            at,
            until: at + random.random_range(1000..lasts),
            done: 0,
        }
    }

    /// Does what the time has come for.
    ///
    /// # Errors
    /// When an object is gone.
    pub fn act(&mut self, world: &World) -> anyhow::Result<()> {
        let now = os::elapsed_ms();
        if self.done == 0 && now >= self.at {
            self.done = 1;
            self.first(world)?;
        }
        if self.done == 1 && now >= self.until {
            self.done = 2;
            self.second(world)?;
        }
        Ok(())
    }

    /// Does what is left to do.
    ///
    /// # Errors
    /// When an object is gone.
    pub fn settle(&mut self, world: &World) -> anyhow::Result<()> {
        (self.at, self.until) = (0, 0);
        self.act(world)
    }

    fn first(&self, world: &World) -> anyhow::Result<()> {
        let device = Key::new("devicecertificates", NAMESPACE, &name(self.device));
        match self.does {
            Does::Nothing => {}
            Does::Revokes | Does::Holds => {
                world.ground.judge.bar(self.device, true);
                let revocation = if self.does == Does::Holds {
                    json!({ "hold": true })
                } else {
                    json!({ "reason": "keyCompromise" })
                };
                world.change(&device, &json!({ "spec": { "revocation": revocation } }))?;
            }
            Does::Pauses => {
                let rotation = Key::new("rotations", NAMESPACE, "round-1");
                world.change(&rotation, &json!({ "spec": { "control": { "state": "Paused" } } }))?;
            }
        }
        world
            .ground
            .history
            .say(format!("a person {:?} d{}", self.does, self.device));
        Ok(())
    }

    fn second(&self, world: &World) -> anyhow::Result<()> {
        match self.does {
            Does::Nothing | Does::Revokes => Ok(()),
            Does::Holds => {
                let device = Key::new("devicecertificates", NAMESPACE, &name(self.device));
                world.ground.history.say(format!("a person releases d{}", self.device));
                world.change(&device, &json!({ "spec": { "revocation": Value::Null } }))?;
                world.ground.judge.release(self.device);
                Ok(())
            }
            Does::Pauses => {
                let rotation = Key::new("rotations", NAMESPACE, "round-1");
                world.ground.history.say("a person lets the Rotation go on");
                world.change(&rotation, &json!({ "spec": { "control": { "state": "Running" } } }))
            }
        }
    }
}
