//! What changed and is published, told to the adapter.

use std::collections::{BTreeMap, BTreeSet};

use certwave_core::door::Scope;
use certwave_core::revocation::Standing;
use certwave_ledger::{LedgerError, SerialKey};
use certwave_pki::partition_of;

use super::{Keeper, ShutError};
use crate::clock::now;
use crate::door::{DoorError, Published};
use crate::publish::end_of;

/// Changes read at a time, and certificates told of at a time.
const BATCH: u32 = 1000;

/// How far the adapter was told.
#[derive(Default)]
pub(super) struct Told {
    /// The change up to which certificates were looked at; none at the start, when the adapter finds out by itself.
    cursor: Option<u64>,
    /// Certificates whose change was seen and not told yet, by scope.
    pending: BTreeMap<Scope, Vec<(SerialKey, Kind)>>,
}

/// What became of a certificate, as far as adapters tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Revoked,
    Held,
    Released,
}

impl From<Standing> for Kind {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Good => Self::Released,
            Standing::Held { .. } => Self::Held,
            Standing::Revoked { .. } => Self::Revoked,
        }
    }
}

impl Keeper {
    /// The numbers of the CRLs published last in the scopes that matter at this broker's door: of the CAs of its fleets, those
    /// partitions whose leaves have not all expired.
    pub(super) async fn published(&self) -> Result<BTreeMap<Scope, u64>, LedgerError> {
        let registry = &self.engine.registry;
        let fleets = registry.fleets();
        let fleets: Vec<_> = fleets.iter().filter(|fleet| fleet.broker == self.entry.id).collect();
        let mut issuers: BTreeSet<String> = fleets.iter().map(|f| f.issuer.ca.key_id().to_string()).collect();
        for rotation in registry.rotations() {
            let ours = fleets.iter().any(|fleet| fleet.key == rotation.fleet);
            issuers.extend(
                rotation
                    .issuer
                    .iter()
                    .filter(|_| ours)
                    .map(|i| i.ca.key_id().to_string()),
            );
        }
        let month = partition_of(now() / 1000);
        let mut published = BTreeMap::new();
        for issuer in issuers {
            for (partition, number) in self.engine.ledger.crl_numbers(&issuer).await? {
                if end_of(&partition).is_some() && partition >= month {
                    published.insert((issuer.clone(), partition), number);
                }
            }
        }
        Ok(published)
    }

    /// Tells the adapter of every change whose CRL is out.
    pub(super) async fn tell(&mut self, published: &BTreeMap<Scope, u64>) -> Result<(), ShutError> {
        self.look().await?;
        if self.told.pending.is_empty() {
            return Ok(());
        }
        let behind: BTreeSet<Scope> = self.engine.ledger.crls_behind().await?.into_iter().collect();
        let ready: Vec<Scope> = self
            .told
            .pending
            .keys()
            .filter(|s| !behind.contains(*s))
            .cloned()
            .collect();
        for scope in ready {
            let Some(certificates) = self.told.pending.remove(&scope) else {
                continue;
            };
            if let Err(error) = self
                .tell_of(&scope, published.get(&scope).copied(), &certificates)
                .await
            {
                self.told.pending.insert(scope, certificates);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Reads the changes since the last look.
    async fn look(&mut self) -> Result<(), LedgerError> {
        let ledger = &self.engine.ledger;
        let Some(mut cursor) = self.told.cursor else {
            self.told.cursor = Some(ledger.last_change().await?);
            return Ok(());
        };
        loop {
            let changes = ledger.changes(cursor, BATCH).await?;
            for change in &changes {
                if let Some(marked) = ledger.marked_certificate(&change.key).await?
                    && marked
                        .identity
                        .as_ref()
                        .is_some_and(|identity| identity.broker == self.entry.id)
                {
                    let scope = (marked.key.issuer.clone(), marked.partition);
                    let pending = self.told.pending.entry(scope).or_default();
                    pending.push((marked.key, marked.standing.into()));
                }
                cursor = cursor.max(change.change);
                self.told.cursor = Some(cursor);
            }
            if changes.len() < BATCH as usize {
                return Ok(());
            }
        }
    }

    async fn tell_of(
        &self,
        scope: &Scope,
        number: Option<u64>,
        certificates: &[(SerialKey, Kind)],
    ) -> Result<(), DoorError> {
        let url = self.engine.registry.issuer(&scope.0).and_then(|issuer| {
            let publication = issuer.ca.publication()?;
            Some(publication.crl_url(issuer.ca.key_id(), &scope.1))
        });
        let crl = number.zip(url).map(|(number, url)| Published {
            issuer: scope.0.clone(),
            partition: scope.1.clone(),
            number,
            url,
        });
        let crls = crl.as_slice();
        for kind in [Kind::Revoked, Kind::Held, Kind::Released] {
            let of_kind = certificates.iter().filter(|(_, k)| *k == kind);
            let keys: Vec<SerialKey> = of_kind.map(|(key, _)| key.clone()).collect();
            for keys in keys.chunks(BATCH as usize) {
                let told = match kind {
                    Kind::Revoked => self.door.revoke(keys, crls),
                    Kind::Held => self.door.hold(keys, crls),
                    Kind::Released => self.door.release(keys, crls),
                };
                self.asked(told).await?;
            }
        }
        Ok(())
    }
}
