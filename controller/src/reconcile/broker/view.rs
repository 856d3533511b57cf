//! A broker's status.

use std::collections::BTreeSet;

use certwave_crds::{Broker, BrokerStatus, CertificateStatus};
use certwave_pki::CertificateInfo;
use certwave_protocol::ids::Fingerprint;

use super::credential::Credential;
use super::{BrokerState, Resolved};
use crate::reconcile::status::{Verdict, condition, shorten};
use crate::reconcile::time::time;
use crate::registry::Link;

/// The whole status.
pub(super) fn status(
    object: &Broker,
    state: &BrokerState,
    resolved: Option<&Resolved>,
    link: &Link,
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
    let connection = match (connected, &link.error) {
        (true, _) => Verdict::yes("Connected", "the controller is connected and subscribed"),
        (false, Some(error)) if usable => Verdict::no("ConnectionFailed", error.clone()),
        (false, _) if usable => Verdict::no("Connecting", "the controller is connecting"),
        (false, _) => Verdict::no("NotReady", "the controller does not connect until the broker is ready"),
    };
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
        anchors: anchors.into_iter().take(32).collect(),
        last_error: link
            .error
            .as_deref()
            .filter(|_| !connected)
            .map(|error| shorten(error, 1024)),
        observed_generation: generation,
        conditions: vec![
            condition("Ready", &ready, generation, &before.conditions, now),
            condition("Connected", &connection, generation, &before.conditions, now),
        ],
    }
}

fn certificate(info: &CertificateInfo) -> CertificateStatus {
    CertificateStatus {
        serial: Some(info.serial.clone()),
        sha256: Some(info.sha256.clone()),
        not_before: Some(time(info.not_before)),
        not_after: Some(time(info.not_after)),
        issuer: None,
    }
}
