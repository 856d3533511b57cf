//! `Fleet`: what it lacks, and whom a broker admits.

use certwave_crds::{Broker, CertificateAuthority, Fleet};
use certwave_ledger::FleetKey;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{Place, broker_spec, fleet_spec, message, until};

impl Place {
    /// Whether the engine would serve the fleet.
    fn served(&self, fleet: &str) -> bool {
        let key = FleetKey {
            namespace: self.namespace.clone(),
            name: fleet.to_owned(),
        };
        self.world.running.registry.fleet(&key).is_some()
    }
}

#[tokio::test]
async fn a_fleet_says_what_it_lacks_until_it_has_everything() {
    let place = Place::new("fleet").await;
    place.apply::<Fleet>("pumps", fleet_spec()).await;
    place.ready::<Fleet>("pumps", "BrokerNotFound").await;
    place.apply::<Broker>("mqtt", broker_spec(&place.namespace)).await;
    place.ready::<Fleet>("pumps", "BrokerNotReady").await;
    place.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    place.ready::<Fleet>("pumps", "BrokerNotConnected").await;
    assert!(place.served("pumps"));

    let mut other = fleet_spec();
    other["issuerRef"]["name"] = json!("missing");
    place.apply::<Fleet>("pumps", other).await;
    let lacking = place.ready::<Fleet>("pumps", "CANotFound").await;
    assert!(message(&lacking).contains("missing"));
    assert!(!place.served("pumps"), "no certificate is issued meanwhile");

    place.apply::<Fleet>("pumps", fleet_spec()).await;
    place.ready::<Fleet>("pumps", "BrokerNotConnected").await;
    place.delete::<Broker>("mqtt").await;
    place.ready::<Fleet>("pumps", "BrokerNotFound").await;
}

#[tokio::test]
async fn a_ca_that_is_not_ready_is_named_with_its_reason() {
    let place = Place::new("fleet").await;
    place.foundation().await;
    place
        .apply::<CertificateAuthority>("brought", json!({"secret": {"secretRef": {"name": "none"}}}))
        .await;
    let mut spec = fleet_spec();
    spec["issuerRef"]["name"] = json!("brought");
    place.apply::<Fleet>("pumps", spec).await;
    until("the CA's own reason", async || {
        let waiting = place.ready::<Fleet>("pumps", "CANotReady").await;
        Ok(message(&waiting).contains("SecretNotFound"))
    })
    .await;
}

#[tokio::test]
async fn a_broker_is_used_only_by_the_namespaces_that_it_admits() {
    let (home, guest) = (Place::new("home").await, Place::new("guest").await);
    home.foundation().await;
    guest.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    let spec = json!({"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt", "namespace": home.namespace}});
    guest.apply::<Fleet>("pumps", spec).await;
    guest.ready::<Fleet>("pumps", "NamespaceNotAdmitted").await;
    assert!(!guest.served("pumps"));

    let mut broker = broker_spec(&home.namespace);
    broker["allowedNamespaces"] = json!({"from": "Selector", "selector": {"matchLabels": {"example.com/mqtt": "yes"}}});
    home.apply::<Broker>("mqtt", broker.clone()).await;
    home.ready::<Fleet>("pumps", "NamespaceNotAdmitted").await;
    let namespaces: Api<Namespace> = Api::all(guest.client.clone());
    let label = json!({"metadata": {"labels": {"example.com/mqtt": "yes"}}});
    namespaces
        .patch(&guest.namespace, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    guest.touch::<Fleet>("pumps").await;
    guest.ready::<Fleet>("pumps", "BrokerNotConnected").await;

    broker["allowedNamespaces"] = json!({"from": "All"});
    home.apply::<Broker>("mqtt", broker).await;
    home.ready::<Fleet>("pumps", "BrokerNotConnected").await;
}
