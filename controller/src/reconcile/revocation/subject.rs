//! Whom a Revocation is about.

use std::collections::BTreeMap;

use certwave_core::model::ObjectRef;
use certwave_crds::Revocation;
use certwave_ledger::{DeviceRow, Ledger, Match, Result as LedgerResult, Target};
use certwave_pki::parse_certificate_info;
use certwave_protocol::ids::Fingerprint;

use crate::reconcile::authority::{Authority, AuthorityState, known};
use crate::reconcile::drive::name;
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;

/// Devices looked at in one go, and recorded in one transaction.
pub(super) const BATCH: u32 = 500;
/// Devices that a status names.
const EXAMPLES: usize = 20;

/// Whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// What the CA with this key id has issued to devices.
    IssuedBy(String),
    /// Devices.
    Devices {
        namespace: String,
        fleet: Option<String>,
        labels: BTreeMap<String, String>,
    },
    /// A CA, by its key id.
    Authority(String),
}

impl Subject {
    /// A page of devices, those after `after`, with the row to go on from; `None` where there are no more. Of a CA itself there are
    /// none.
    pub(super) async fn page(
        &self,
        ledger: &dyn Ledger,
        now_s: i64,
        after: Option<DeviceRow>,
    ) -> LedgerResult<Option<(DeviceRow, Vec<Match>)>> {
        let rows = match self {
            Self::IssuedBy(issuer) => ledger.issued_by(issuer, now_s, after, BATCH).await?,
            Self::Devices { namespace, fleet, .. } => {
                let fleet = fleet.as_deref();
                ledger.revocable(namespace, fleet, now_s, after, BATCH).await?
            }
            Self::Authority(_) => Vec::new(),
        };
        let Some((last, _)) = rows.last() else {
            return Ok(None);
        };
        let last = *last;
        let matched = rows.into_iter().map(|(_, found)| found);
        Ok(Some((last, matched.filter(|found| self.takes(found)).collect())))
    }

    fn takes(&self, found: &Match) -> bool {
        match self {
            Self::Devices { labels, .. } => labels.iter().all(|(key, value)| found.labels.get(key) == Some(value)),
            Self::IssuedBy(_) | Self::Authority(_) => true,
        }
    }

    /// What of a matched device is meant.
    pub(super) fn target(&self, found: &Match) -> Target {
        match self {
            Self::IssuedBy(issuer) => Target::DeviceIssuedBy(found.identity.clone(), issuer.clone()),
            Self::Devices { .. } | Self::Authority(_) => Target::Device(found.identity.clone()),
        }
    }
}

/// Whom it is about, or what is in the way. A CA that is revoked itself goes on to publish: what it has issued can be revoked after it.
pub(super) fn resolve(shared: &Shared, object: &Revocation) -> Result<Subject, Verdict> {
    let namespace = name(object).namespace;
    let there = |name: &str| ObjectRef {
        namespace: namespace.clone(),
        name: name.to_owned(),
    };
    if let Some(reference) = &object.spec.issuer_ref {
        let target = there(&reference.name);
        let state = shared.authorities.get(&target);
        let authority = known(state.as_deref(), &target, "spec.issuerRef")?;
        return Ok(Subject::IssuedBy(authority.entry.ca.key_id().to_string()));
    }
    if let Some(reference) = &object.spec.certificate_authority {
        let target = there(&reference.name);
        let state = shared.authorities.get(&target);
        let authority = known(state.as_deref(), &target, "spec.certificateAuthority")?;
        listed_here(shared, &target, authority)?;
        return Ok(Subject::Authority(authority.entry.ca.key_id().to_string()));
    }
    if let Some(reference) = &object.spec.fleet_ref
        && shared.homes.get(&there(&reference.name)).is_none()
    {
        let message = format!("spec.fleetRef names the Fleet {}, which does not exist", reference.name);
        return Err(Verdict::no("FleetNotFound", message));
    }
    Ok(Subject::Devices {
        fleet: object.spec.fleet_ref.as_ref().map(|reference| reference.name.clone()),
        labels: object
            .spec
            .selector
            .as_ref()
            .map(|s| s.match_labels.clone())
            .unwrap_or_default(),
        namespace,
    })
}

/// Whether the CRL that lists a CA's certificate is made here.
fn listed_here(shared: &Shared, object: &ObjectRef, authority: &Authority) -> Result<(), Verdict> {
    let ca = &authority.entry.ca;
    if ca.is_root() {
        let message = format!(
            "{} is a root: no CRL revokes a root, as nobody stands above it; move the fleets to another CA, whose anchor takes the \
             place of this one in their trust bundles, and revoke what it has issued by issuerRef",
            object.name
        );
        return Err(Verdict::no("RootCannotBeRevoked", message));
    }
    let above = ca.issuing_chain().nth(1).or(ca.root_der());
    let issuer = above
        .and_then(|der| parse_certificate_info(der).ok())
        .map(|info| info.key_id.to_string());
    let known = shared.authorities.all().into_iter().any(|(_, state)| match &*state {
        AuthorityState::Ready(other) => Some(other.entry.ca.key_id().to_string()) == issuer,
        AuthorityState::NotReady(_) => false,
    });
    if known {
        return Ok(());
    }
    let message = format!(
        "{} was issued by a CA that is not here (or not ready): ask whoever runs that one to revoke it, and revoke what it has \
         issued by issuerRef",
        object.name
    );
    Err(Verdict::no("IssuerNotHere", message))
}

/// Whom it would be about now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) certificates: u32,
    pub(super) hash: String,
    pub(super) examples: Vec<String>,
}

impl Plan {
    /// Counts and hashes; the ledger is only read.
    pub(super) async fn of(ledger: &dyn Ledger, subject: &Subject, now_s: i64) -> LedgerResult<Self> {
        let mut plan = Self::empty(subject);
        let mut after = None;
        while let Some((last, page)) = subject.page(ledger, now_s, after).await? {
            after = Some(last);
            for found in &page {
                plan.add(found);
            }
        }
        Ok(plan)
    }

    fn empty(subject: &Subject) -> Self {
        Self {
            devices: 0,
            certificates: u32::from(matches!(subject, Subject::Authority(_))),
            hash: Fingerprint::of(format!("{subject:?}").as_bytes()).to_string(),
            examples: Vec::new(),
        }
    }

    fn add(&mut self, found: &Match) {
        let identity = &found.identity;
        self.devices = self.devices.saturating_add(1);
        self.certificates = self.certificates.saturating_add(found.certificates);
        let line = format!(
            "{} {}/{} {}",
            self.hash, identity.broker, identity.device, found.certificates
        );
        self.hash = Fingerprint::of(line.as_bytes()).to_string();
        if self.examples.len() < EXAMPLES {
            self.examples.push(identity.device.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::model::Identity;

    use super::*;

    fn found(device: &str, certificates: u32, site: &str) -> Match {
        Match {
            identity: Identity {
                broker: "b".parse().unwrap(),
                device: device.parse().unwrap(),
            },
            object: ObjectRef {
                namespace: "n".into(),
                name: device.into(),
            },
            labels: BTreeMap::from([("site".to_owned(), site.to_owned())]),
            certificates,
        }
    }

    fn plan(of: &[Match]) -> Plan {
        let mut plan = Plan::empty(&Subject::IssuedBy("aa".into()));
        for found in of {
            plan.add(found);
        }
        plan
    }

    #[test]
    fn a_plan_has_the_same_hash_only_for_the_same_devices_and_certificates() {
        let whole = plan(&[found("a", 1, "north"), found("b", 2, "north")]);
        assert_eq!((whole.devices, whole.certificates), (2, 3));
        assert_eq!(whole.hash.len(), 64);
        assert_eq!(whole, plan(&[found("a", 1, "south"), found("b", 2, "north")]));
        assert_ne!(whole.hash, plan(&[found("a", 1, "north")]).hash);
        assert_ne!(whole.hash, plan(&[found("a", 2, "north"), found("b", 1, "north")]).hash);
        let of_another = Plan::empty(&Subject::IssuedBy("bb".into()));
        assert_ne!(plan(&[]).hash, of_another.hash);
    }

    #[test]
    fn labels_choose_and_what_another_ca_has_issued_is_left_alone() {
        let devices = Subject::Devices {
            namespace: "n".into(),
            fleet: None,
            labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        };
        let north = found("a", 1, "north");
        assert!(devices.takes(&north) && !devices.takes(&found("a", 1, "south")));
        assert_eq!(devices.target(&north), Target::Device(north.identity.clone()));
        let issued = Subject::IssuedBy("aa".into());
        let target = Target::DeviceIssuedBy(north.identity.clone(), "aa".into());
        assert_eq!(issued.target(&north), target);
    }
}
