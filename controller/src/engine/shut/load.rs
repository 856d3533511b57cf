//! What nodes have loaded, into the ledger, and whether that is as it should be.

use std::collections::{BTreeMap, HashMap};

use certwave_core::door::{Lag, Limits, Node, Scope, counted};
use certwave_ledger::{DoorLoad, LedgerError};

use super::Keeper;
use crate::clock::now;
use crate::door::Fault;

/// A node that has not loaded for so long what was published is late, milliseconds.
const BEHIND_AFTER: i64 = 30_000;
/// Covers of a scope in which a number that was loaded is looked for.
const COVERS: u32 = 16;

/// What the ledger knows of a door's nodes.
#[derive(Default)]
pub(super) struct Loads {
    written: HashMap<(String, Scope), u64>,
    /// Names of the nodes that counted when it was last written.
    nodes: Vec<String>,
    lag: Lag,
}

impl Keeper {
    /// Writes what is new; answers what is wrong, if anything.
    pub(super) async fn load(
        &mut self,
        nodes: &[Node],
        published: &BTreeMap<Scope, u64>,
    ) -> Result<Option<Fault>, LedgerError> {
        if !self.door.abilities().reports_loading {
            return Ok(None);
        }
        let (at, late_after) = (now(), self.entry.door.late_after());
        let counted = counted(nodes, self.entry.nodes, at, late_after);
        let mut names: Vec<String> = counted.iter().map(|node| node.name.clone()).collect();
        // Those that have never spoken are waited for, too. No node can have such a name.
        names.extend((names.len()..self.entry.nodes).map(|missing| format!("~missing.{missing}")));
        let loads: Vec<DoorLoad> = nodes.iter().flat_map(|node| self.news(node, at)).collect();
        if !loads.is_empty() || names != self.loads.nodes {
            self.engine
                .ledger
                .doors_loaded(self.engine.epoch, loads.clone(), &names)
                .await?;
            self.loads.nodes = names;
            for load in loads {
                self.measure(&load).await?;
                let key = (load.node, (load.issuer, load.partition));
                self.loads.written.insert(key, load.number);
            }
        }
        let limits = Limits {
            silent_after: late_after,
            behind_after: BEHIND_AFTER,
        };
        let verdict = self.loads.lag.judge(at, limits, self.entry.nodes, &counted, published);
        Ok(Fault::of(&verdict))
    }

    /// What a node has loaded that the ledger does not know.
    fn news(&self, node: &Node, at: i64) -> Vec<DoorLoad> {
        let known = |scope: &Scope| self.loads.written.get(&(node.name.clone(), scope.clone()));
        let new = node
            .loaded
            .iter()
            .filter(|(scope, number)| known(scope).is_none_or(|known| known < number));
        new.map(|((issuer, partition), number)| DoorLoad {
            broker: self.entry.id.clone(),
            node: node.name.clone(),
            issuer: issuer.clone(),
            partition: partition.clone(),
            number: *number,
            at,
        })
        .collect()
    }

    /// How long it took, where this process has seen the node go from one CRL to the next.
    async fn measure(&self, load: &DoorLoad) -> Result<(), LedgerError> {
        let key = (load.node.clone(), (load.issuer.clone(), load.partition.clone()));
        if !self.loads.written.contains_key(&key) {
            return Ok(());
        }
        let covers = self
            .engine
            .ledger
            .crl_covers(&load.issuer, &load.partition, COVERS)
            .await?;
        if let Some(cover) = covers.iter().find(|cover| cover.number == load.number) {
            #[allow(clippy::cast_precision_loss)]
            let seconds = load.at.saturating_sub(cover.published_at).max(0) as f64 / 1000.0;
            self.engine.metrics.brokers.crl_load_duration.observe(seconds);
        }
        Ok(())
    }
}
