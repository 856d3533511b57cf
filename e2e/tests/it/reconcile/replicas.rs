//! Several controllers at once: the Lease keeps them apart, and where it does not, they still make one CA.

use std::time::Duration;

use certwave_controller::reconcile::leader;
use certwave_crds::CertificateAuthority;
use certwave_pki::parse_certificate_info_pem;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use super::{Place, Running};

#[tokio::test]
async fn any_number_of_replicas_makes_one_ca() {
    let place = Place::new("replicas").await;
    // The one that serves every namespace, and three more with ledgers of their own: nothing but the Secret binds them.
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let client = place.world.api.client().await.unwrap();
        replicas.push(Running::start(client, Some(place.namespace.clone())));
    }
    for number in 0..5 {
        place
            .apply::<CertificateAuthority>(&format!("root-{number}"), json!({"root": {}}))
            .await;
    }
    for number in 0..5 {
        let name = format!("root-{number}");
        let status = place
            .ready::<CertificateAuthority>(&name, "Ready")
            .await
            .status
            .unwrap();
        let stored = parse_certificate_info_pem(&place.secret_text(&format!("{name}-ca"), "tls.crt").await).unwrap();
        assert_eq!(status.sha256.as_ref(), Some(&stored.sha256));
        for replica in &replicas {
            super::until("the CA in every ledger", async || {
                let known = replica.ledger.authority(status.key_id.as_deref().unwrap()).await?;
                Ok(known.is_some_and(|known| known.record.fingerprint.to_string() == stored.sha256))
            })
            .await;
        }
    }
}

#[tokio::test]
async fn one_leads_and_the_next_follows_when_it_lets_go() {
    let place = Place::new("lease").await;
    let acquire = |who: &'static str| {
        let (client, namespace) = (place.client.clone(), place.namespace.clone());
        async move { leader::acquire(client, &namespace, "certwave", who).await.unwrap() }
    };
    let first = acquire("first").await;
    let second = acquire("second");
    let mut second = std::pin::pin!(second);
    assert!(
        tokio::time::timeout(Duration::from_secs(6), &mut second).await.is_err(),
        "two must not lead"
    );
    let gate = first.gate();
    assert!(gate.is_open());
    first.release().await;
    assert!(!gate.is_open(), "whoever has let go says nothing more");
    let second = tokio::time::timeout(Duration::from_secs(15), second).await.unwrap();

    // Somebody who takes the Lease by force is noticed.
    let gate = second.gate();
    assert!(gate.is_open());
    let leases = place.api::<Lease>();
    let mut lease = leases.get("certwave").await.unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("usurper".to_owned());
    leases
        .replace("certwave", &kube::api::PostParams::default(), &lease)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(15), second.lost())
        .await
        .unwrap();
    assert!(!gate.is_open());
}
