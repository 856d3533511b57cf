//! Everything at one instant.

use std::collections::BTreeSet;

use certwave_agent::journal::Journal;

use crate::breach::Breach;
use crate::device::{Device, SLOTS, Shown};
use crate::ledger::Ledger;
use crate::message::{Net, Said, Told, Up, What};
use crate::scenario::Faults;
use crate::symbols::{self, LEAVES, Leaf};

/// Faults that may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Of whatever kind.
    pub any: u8,
    /// Of each.
    pub each: Faults,
}

/// Controller, door, device and network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// What the controller knows.
    pub ledger: Ledger,
    /// A controller that was deposed still hears and speaks.
    pub deposed: bool,
    /// The certificates that the door refuses, as far as it has heard.
    pub shut: BTreeSet<Leaf>,
    /// The device.
    pub device: Device,
    /// Messages under way.
    pub net: Net,
    /// What the device has shown.
    pub shown: Shown,
    /// Since the hold of the retirement began, the device has come in with the new certificate while the door refused the old.
    pub came_in: bool,
    /// What may still go wrong.
    pub left: Left,
    /// What must not happen and did.
    pub breach: Option<Breach>,
}

/// Certificates as bits.
#[derive(Debug, Clone, Copy, Default)]
struct Named(u32);

impl Named {
    fn add(&mut self, leaf: Leaf) {
        if leaf < LEAVES {
            self.0 |= 1 << leaf;
        }
    }

    fn has(self, leaf: Leaf) -> bool {
        self.0 & (1 << leaf) != 0
    }
}

impl State {
    /// Certificates and keys that anybody can still name.
    fn named(&self) -> Named {
        let mut named = Named::default();
        let ledger = &self.ledger.device;
        for credential in [&ledger.current, &ledger.previous, &ledger.pending]
            .into_iter()
            .flatten()
        {
            named.add(symbols::leaf(&credential.fingerprint));
        }
        if let Some(retirement) = &self.ledger.retirement {
            named.add(symbols::leaf(&retirement.0.old));
            named.add(symbols::leaf(&retirement.0.new));
        }
        let mut journal = |journal: &Journal| {
            for held in SLOTS.into_iter().filter_map(|slot| journal.held(slot)) {
                named.add(symbols::leaf(&held.leaf));
            }
            if let Some(csr) = journal.job.as_ref().and_then(|j| j.csr.as_ref()) {
                named.add(symbols::number_of(csr));
            }
        };
        journal(&self.device.disk.journal);
        journal(self.device.machine.journal());
        for leaf in self.device.disk.keys.into_iter().chain(self.device.disk.leaves) {
            named.add(leaf);
        }
        for Up { said, signer, .. } in &self.net.up {
            named.add(*signer);
            match said {
                Said::Hello { slots, .. } => slots.iter().for_each(|leaf| named.add(*leaf)),
                Said::Csr(leaf) | Said::Tested(What::Leaf(leaf)) => named.add(*leaf),
                _ => {}
            }
        }
        for down in &self.net.down {
            if let Told::Certificate(leaf) | Told::Commit(What::Leaf(leaf)) | Told::Rollback(leaf) = down.told {
                named.add(leaf);
            }
        }
        named
    }

    /// The least number that no key has.
    pub fn fresh(&self) -> Leaf {
        let named = self.named();
        (1..LEAVES).find(|leaf| !named.has(*leaf)).unwrap_or(LEAVES - 1)
    }

    /// Forgets what makes no difference any more.
    pub fn tidy(&mut self) {
        if self.left.any == 0 || self.left.each.repeats == 0 {
            self.net.down.retain(|down| down.present);
        }
        if self.left.any == 0 {
            self.left.each = Faults::default();
            self.deposed = false;
        }
        let named = self.named();
        self.ledger.issued.retain(|leaf, _| named.has(*leaf));
        self.shut.retain(|leaf| named.has(*leaf));
        let keep = |what: &What| match what {
            What::Leaf(leaf) => named.has(*leaf),
            What::Bundle(_) => true,
        };
        self.shown.tested.retain(keep);
        self.shown.obeyed.retain(keep);
        if self.ledger.retirement.is_none() {
            self.came_in = false;
            self.ledger.watched = true;
        }
    }

    /// The certificate in the slot that the device starts from, by its journal on the disk.
    pub fn active(&self) -> Leaf {
        let journal = &self.device.disk.journal;
        let held = journal.active.and_then(|slot| journal.held(slot));
        held.map_or(0, |held| symbols::leaf(&held.leaf))
    }
}
