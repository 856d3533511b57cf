//! A broker's status.

use std::collections::BTreeSet;
use std::sync::Arc;

use certwave_core::door::Node;
use certwave_crds::{Broker, BrokerNode, BrokerStatus, CertificateStatus, LoadedCrl};
use certwave_pki::CertificateInfo;
use certwave_protocol::ids::{BrokerId, Fingerprint};

use super::credential::Credential;
use super::{BrokerState, Resolved};
use crate::door::DoorView;
use crate::reconcile::status::{Verdict, condition, door_current, shorten};
use crate::reconcile::time::time;
use crate::registry::{Link, Registry};

/// What the engine has seen of a broker.
#[derive(Default)]
pub(super) struct Seen {
    link: Link,
    claims: Link,
    door: Option<Arc<DoorView>>,
}

impl Seen {
    pub(super) fn of(registry: &Registry, id: &BrokerId) -> Self {
        Self {
            link: registry.link(id),
            claims: registry.claims_link(id),
            door: registry.door_view(id),
        }
    }
}

/// The whole status.
pub(super) fn status(
    object: &Broker,
    state: &BrokerState,
    resolved: Option<&Resolved>,
    Seen { link, claims, door }: &Seen,
    now: i64,
) -> BrokerStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let usable = matches!(state, BrokerState::Ready(_));
    let connected = usable && link.connected;
    let ready = match state {
        BrokerState::NotReady(verdict) => verdict.clone(),
        BrokerState::Ready(_) => Verdict::yes("Ready", "fleets can use the broker"),
    };
    let mut conditions = vec![
        condition("Ready", &ready, generation, &before.conditions, now),
        condition(
            "Connected",
            &connection(usable, link),
            generation,
            &before.conditions,
            now,
        ),
    ];
    if resolved.is_some_and(|resolved| resolved.claims.is_some()) {
        let verdict = connection(usable, claims);
        conditions.push(condition(
            "ClaimsConnected",
            &verdict,
            generation,
            &before.conditions,
            now,
        ));
    }
    let current = door_current(resolved.map(|resolved| &resolved.door), door.as_deref());
    if let Some(verdict) = current {
        conditions.push(condition("DoorCurrent", &verdict, generation, &before.conditions, now));
    }
    let shown = |credential: &Credential| certificate(&credential.info);
    let anchors: BTreeSet<String> = resolved
        .into_iter()
        .flat_map(|r| &r.trust)
        .map(|der| Fingerprint::of(der).to_string())
        .collect();
    BrokerStatus {
        connected,
        control_certificate: resolved.map(|r| shown(&r.control)),
        client_certificate: resolved.map(|r| shown(&r.client)),
        server_certificate: resolved.and_then(|r| r.server.as_ref()).map(shown),
        nodes: door.iter().flat_map(|door| &door.nodes).take(100).map(node).collect(),
        anchors: anchors.into_iter().take(32).collect(),
        last_error: link
            .error
            .as_deref()
            .filter(|_| !connected)
            .map(|error| shorten(error, 1024)),
        observed_generation: generation,
        conditions,
    }
}

/// How a connection stands.
fn connection(usable: bool, link: &Link) -> Verdict {
    match &link.error {
        _ if !usable => Verdict::no("NotReady", "the controller does not connect until the broker is ready"),
        _ if link.connected => Verdict::yes("Connected", "the controller is connected and subscribed"),
        Some(error) => Verdict::no("ConnectionFailed", error.clone()),
        None => Verdict::no("Connecting", "the controller is connecting"),
    }
}

/// What a node says of its door.
fn node(node: &Node) -> BrokerNode {
    let crl = |((issuer, partition), number): (&(String, String), &u64)| LoadedCrl {
        issuer: issuer.clone(),
        partition: partition.clone(),
        number: i64::try_from(*number).unwrap_or(i64::MAX),
    };
    BrokerNode {
        name: node.name.clone(),
        last_report: Some(time(node.heard / 1000)),
        crls: node.loaded.iter().take(32).map(crl).collect(),
        error: node.error.as_deref().map(|error| shorten(error, 512)),
    }
}

fn certificate(info: &CertificateInfo) -> CertificateStatus {
    CertificateStatus {
        serial: Some(info.serial.clone()),
        sha256: Some(info.sha256.clone()),
        not_before: Some(time(info.not_before)),
        not_after: Some(time(info.not_after)),
        issuer: None,
        public_key: None,
        standing: None,
    }
}
