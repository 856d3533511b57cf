//! From a Fleet's spec to what the engine works by.

use std::collections::BTreeSet;
use std::sync::Arc;

use certwave_core::model::ObjectRef;
use certwave_core::policy::{FleetPolicy, JobPolicy};
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::Calendar;
use certwave_crds::{AllowedNamespaces, DeviceLimits, Fleet, NamespacesFrom, RetriedOutcome};
use certwave_pki::{AttributeType, CsrPolicy, LeafTemplate, SanKind, TemplateSpec};
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::message::Der;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::core::{Selector, SelectorExt as _};
use kube::{Resource, ResourceExt};

use super::key;
use crate::reconcile::authority::{Authority, AuthorityState, algorithm, known};
use crate::reconcile::broker::{BrokerState, Usable};
use crate::reconcile::drive::name;
use crate::reconcile::error::Result;
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;
use crate::reconcile::strategy::strategy;
use crate::registry::FleetEntry;

/// What there is of a fleet.
pub(super) struct Resolved {
    /// Its broker, when that is ready and admits the fleet: devices can be declared even while the CA is not ready.
    pub(super) broker: Option<BrokerId>,
    /// Its CA, when that is ready.
    pub(super) authority: Option<Arc<AuthorityState>>,
    /// What the engine works by, or what is missing.
    pub(super) entry: std::result::Result<FleetEntry, Verdict>,
}

impl Resolved {
    pub(super) fn authority(&self) -> Option<&Authority> {
        match self.authority.as_deref() {
            Some(AuthorityState::Ready(authority)) if !authority.entry.revoked => Some(authority),
            _ => None,
        }
    }
}

/// The Broker that a fleet names.
pub(super) fn broker_of(fleet: &Fleet) -> ObjectRef {
    let reference = &fleet.spec.broker_ref;
    ObjectRef {
        namespace: reference.namespace.clone().unwrap_or_else(|| name(fleet).namespace),
        name: reference.name.clone(),
    }
}

/// Looks up CA and broker.
pub(super) async fn resolve(shared: &Shared, fleet: &Fleet) -> Result<Resolved> {
    let own = name(fleet);
    let broker_name = broker_of(fleet);
    let issuer_name = ObjectRef {
        namespace: own.namespace.clone(),
        name: fleet.spec.issuer_ref.name.clone(),
    };
    let broker_state = shared.brokers.get(&broker_name);
    let usable = match broker_state.as_deref() {
        None => Err(Verdict::no(
            "BrokerNotFound",
            format!(
                "spec.brokerRef names the Broker {}/{}, which does not exist",
                broker_name.namespace, broker_name.name
            ),
        )),
        Some(state) => admitted(shared, state, &broker_name, &own.namespace).await?,
    };
    let authority = shared.authorities.get(&issuer_name);
    let broker = usable.as_ref().ok().map(|usable| usable.id.clone());
    let entry = usable.and_then(|usable| {
        let issuer = known(authority.as_deref(), &issuer_name, "spec.issuerRef")?;
        entry(fleet, &own, usable, issuer, &shared.moving_anchors(&key(&own)))
    });
    Ok(Resolved {
        broker,
        authority,
        entry,
    })
}

/// The broker, if it is ready and lets this namespace in.
async fn admitted<'a>(
    shared: &Shared,
    state: &'a BrokerState,
    broker: &ObjectRef,
    namespace: &str,
) -> Result<std::result::Result<&'a Usable, Verdict>> {
    let usable = match state {
        BrokerState::Ready(usable) => usable,
        BrokerState::NotReady(why) => {
            let message = format!(
                "the Broker {} is not ready: {}: {}",
                broker.name, why.reason, why.message
            );
            return Ok(Err(Verdict::no("BrokerNotReady", message)));
        }
    };
    let labels = match usable.allowed.from {
        NamespacesFrom::Selector => {
            let namespaces: Api<Namespace> = Api::all(shared.client.clone());
            namespaces
                .get_opt(namespace)
                .await?
                .map(|n| n.labels().clone())
                .unwrap_or_default()
        }
        NamespacesFrom::Same | NamespacesFrom::All => std::collections::BTreeMap::new(),
    };
    Ok(if admits(&usable.allowed, &broker.namespace, namespace, &labels) {
        Ok(usable)
    } else {
        let message = format!(
            "the Broker {}/{} does not admit the namespace {namespace}; its spec.allowedNamespaces says which it does",
            broker.namespace, broker.name
        );
        Err(Verdict::no("NamespaceNotAdmitted", message))
    })
}

/// Whether a broker lets a namespace with these labels in.
fn admits(
    allowed: &AllowedNamespaces,
    own: &str,
    namespace: &str,
    labels: &std::collections::BTreeMap<String, String>,
) -> bool {
    match allowed.from {
        NamespacesFrom::Same => own == namespace,
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => allowed
            .selector
            .clone()
            .and_then(|selector| Selector::try_from(selector).ok())
            .is_some_and(|selector| selector.matches(labels)),
    }
}

fn entry(
    fleet: &Fleet,
    own: &ObjectRef,
    broker: &Usable,
    issuer: &Authority,
    moving: &[Vec<u8>],
) -> std::result::Result<FleetEntry, Verdict> {
    let certificate = &fleet.spec.certificate;
    if certificate.renew_before.as_millis() >= certificate.validity.as_millis() {
        return Err(Verdict::no(
            "InvalidCertificateTemplate",
            "spec.certificate.renewBefore must be less than validity: every certificate would be due at once",
        ));
    }
    let template =
        template(fleet).map_err(|e| Verdict::no("InvalidCertificateTemplate", format!("spec.certificate: {e}")))?;
    let algorithms: Vec<_> = certificate
        .key_algorithms
        .iter()
        .map(|declared| algorithm(*declared))
        .collect();
    let anchors: BTreeSet<Vec<u8>> = std::iter::once(issuer.anchor().to_vec())
        .chain(broker.anchors.iter().map(|der| der.to_vec()))
        .chain(moving.iter().cloned())
        .collect();
    let bundle = Fingerprint::of_bundle(&anchors);
    // A mistyped time zone must not keep devices from enrolling.
    let (strategy, calendar, strategy_fault) = match declared_strategy(fleet) {
        Ok((strategy, calendar)) => (strategy, calendar, None),
        Err(fault) => (Strategy::default(), Calendar::default(), Some(fault)),
    };
    Ok(FleetEntry {
        key: key(own),
        uid: fleet.meta().uid.clone().unwrap_or_default(),
        broker: broker.id.clone(),
        policy: FleetPolicy {
            renew_before: certificate.renew_before.as_millis(),
            issuer: issuer.entry.ca.key_id().to_string(),
            bundle,
        },
        calendar: Arc::new(calendar),
        strategy: Arc::new(strategy),
        strategy_fault,
        issuer: issuer.entry.clone(),
        template,
        csr: CsrPolicy {
            algorithms: algorithms.clone(),
        },
        algorithms: algorithms
            .iter()
            .map(|algorithm| algorithm.as_str().to_owned())
            .collect(),
        validity: certificate.validity.as_std(),
        backdate: certificate
            .backdate
            .as_ref()
            .map_or(issuer.backdate, certwave_crds::Duration::as_std),
        anchors: anchors.into_iter().map(Der).collect(),
        bundle,
    })
}

fn declared_strategy(fleet: &Fleet) -> std::result::Result<(Strategy, Calendar), String> {
    let strategy = strategy(fleet, None).map_err(|fault| fault.to_string())?;
    let calendar = Calendar::compile(&strategy.windows).map_err(|fault| format!("spec.rotation.windows: {fault}"))?;
    Ok((strategy, calendar))
}

/// How jobs run, as the engine has it.
pub(in crate::reconcile) fn job_policy(limits: &DeviceLimits) -> JobPolicy {
    JobPolicy {
        step_timeout: limits.step_timeout.as_millis(),
        trial_timeout: limits.trial_timeout.as_millis(),
        job_timeout: limits.job_timeout.as_millis(),
        offline_after: limits.offline_after.as_millis(),
        lost_after: limits.lost_after.as_millis(),
        max_retries: limits.retries.max.max(0).unsigned_abs(),
        retry_backoff: limits.retries.backoff.as_millis(),
        retry_failed: limits.retries.outcomes.contains(&RetriedOutcome::Failed),
        retry_timed_out: limits.retries.outcomes.contains(&RetriedOutcome::TimedOut),
    }
}

fn template(fleet: &Fleet) -> std::result::Result<LeafTemplate, certwave_pki::TemplateError> {
    let declared = &fleet.spec.certificate;
    let subject = &declared.subject;
    let attributes = [
        (AttributeType::Country, &subject.country),
        (AttributeType::Organization, &subject.organization),
        (AttributeType::OrganizationalUnit, &subject.organizational_unit),
        (AttributeType::Locality, &subject.locality),
    ];
    LeafTemplate::parse(&TemplateSpec {
        subject: attributes
            .into_iter()
            .filter_map(|(kind, text)| Some((kind, text.clone()?)))
            .collect(),
        sans: (declared.sans.dns.iter().map(|name| (SanKind::Dns, name.clone())))
            .chain(declared.sans.uris.iter().map(|uri| (SanKind::Uri, uri.clone())))
            .collect(),
    })
}

/// Whether the engine would see no difference.
pub(super) fn same(a: &FleetEntry, b: &FleetEntry) -> bool {
    let issuer = |entry: &FleetEntry| {
        let ca = &entry.issuer.ca;
        (
            ca.certificate_der().clone(),
            ca.chain().to_vec(),
            ca.publication().cloned(),
            entry.issuer.crl,
            entry.issuer.revoked,
        )
    };
    a.uid == b.uid
        && a.broker == b.broker
        && a.policy == b.policy
        && a.strategy == b.strategy
        && a.strategy_fault == b.strategy_fault
        && a.template == b.template
        && a.csr == b.csr
        && a.validity == b.validity
        && a.backdate == b.backdate
        && a.anchors == b.anchors
        && issuer(a) == issuer(b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_broker_admits_its_own_namespace_all_or_the_selected_ones() {
        let allowed = |value| serde_json::from_value::<AllowedNamespaces>(value).unwrap();
        let labels = BTreeMap::from([("tier".to_owned(), "prod".to_owned())]);
        let same = allowed(serde_json::json!({}));
        assert!(admits(&same, "a", "a", &BTreeMap::new()));
        assert!(!admits(&same, "a", "b", &labels));
        assert!(admits(
            &allowed(serde_json::json!({"from": "All"})),
            "a",
            "b",
            &BTreeMap::new()
        ));
        let selected = allowed(serde_json::json!({"from": "Selector", "selector": {"matchLabels": {"tier": "prod"}}}));
        assert!(admits(&selected, "a", "b", &labels));
        assert!(!admits(&selected, "a", "b", &BTreeMap::new()));
        assert!(
            !admits(&selected, "a", "a", &BTreeMap::new()),
            "the selector alone decides"
        );
    }
}
