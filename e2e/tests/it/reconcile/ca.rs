//! `CertificateAuthority`.

use std::time::Duration;

use certwave_crds::CertificateAuthority as Object;
use certwave_pki::{
    CaProfile, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey,
    certificates_from_pem, certificates_to_pem, csr_from_pem,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Place, now};

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

/// A CA of somebody else's, with its key as PEM.
fn foreign(name: &str, at: i64, validity: Duration) -> (CertificateAuthority, String) {
    let key = key();
    let pem = key.to_pkcs8_pem().expose_secret().to_owned();
    let profile = CaProfile {
        validity,
        ..CaProfile::named(name)
    };
    (CertificateAuthority::self_signed(key, &profile, at).unwrap(), pem)
}

fn pem(ca: &CertificateAuthority) -> String {
    certificates_to_pem([ca.certificate_der()])
}

#[tokio::test]
async fn a_root_is_made_once_and_outlives_its_object() {
    let place = Place::new("ca").await;
    place
        .apply::<Object>("root", json!({"root": {}, "keyAlgorithm": "ECDSA-P384"}))
        .await;
    let made = place.ready::<Object>("root", "Ready").await.status.unwrap();
    let crl = place
        .world
        .running
        .ledger
        .crl(made.key_id.as_deref().unwrap(), "ca")
        .await
        .unwrap();
    assert!(crl.is_some(), "its first CRL is published before it issues");
    let secret = place.api::<Secret>().get("root-ca").await.unwrap();
    assert_eq!(
        secret.metadata.owner_references, None,
        "deleting the object must not delete the key"
    );

    place.delete::<Object>("root").await;
    place
        .apply::<Object>("root", json!({"root": {}, "keyAlgorithm": "ECDSA-P384"}))
        .await;
    let again = place.ready::<Object>("root", "Ready").await.status.unwrap();
    assert_eq!((again.key_id, again.sha256), (made.key_id, made.sha256));
}

#[tokio::test]
async fn a_lost_key_is_reported_and_never_made_anew() {
    let place = Place::new("ca").await;
    place.apply::<Object>("root", json!({"root": {}})).await;
    let made = place.ready::<Object>("root", "Ready").await.status.unwrap();
    let kept = place.api::<Secret>().get("root-ca").await.unwrap();
    place.delete::<Secret>("root-ca").await;
    place.touch::<Object>("root").await;
    let lost = place.ready::<Object>("root", "KeyLost").await.status.unwrap();
    assert_eq!(lost.key_id, made.key_id);
    assert!(place.api::<Secret>().get_opt("root-ca").await.unwrap().is_none());
    // Put back from a manifest, which has no status.
    place.delete::<Object>("root").await;
    place.apply::<Object>("root", json!({"root": {}})).await;
    place.ready::<Object>("root", "KeyLost").await;
    assert!(place.api::<Secret>().get_opt("root-ca").await.unwrap().is_none());

    let mut backup = Secret {
        metadata: kept.metadata.clone(),
        data: kept.data.clone(),
        type_: kept.type_,
        ..Secret::default()
    };
    backup.metadata.resource_version = None;
    backup.metadata.uid = None;
    backup.metadata.managed_fields = None;
    place
        .api::<Secret>()
        .create(&PostParams::default(), &backup)
        .await
        .unwrap();
    let restored = place.ready::<Object>("root", "Ready").await.status.unwrap();
    assert_eq!(restored.sha256, made.sha256);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_touched() {
    let place = Place::new("ca").await;
    place.secret("root-ca", &[("tls.key", "mine")]).await;
    place.apply::<Object>("root", json!({"root": {}})).await;
    place.ready::<Object>("root", "SecretInUse").await;
    assert_eq!(place.secret_text("root-ca", "tls.key").await, "mine");
}

#[tokio::test]
async fn a_subordinate_waits_for_its_issuer_and_chains_to_it() {
    let place = Place::new("ca").await;
    place
        .apply::<Object>(
            "issuing",
            json!({"subordinate": {"issuerRef": {"name": "root"}}, "pathLength": 0}),
        )
        .await;
    place.ready::<Object>("issuing", "CANotFound").await;
    place.apply::<Object>("root", json!({"root": {}})).await;
    let issuing = place.ready::<Object>("issuing", "Ready").await.status.unwrap();
    let root = place.ready::<Object>("root", "Ready").await.status.unwrap();
    assert_eq!(issuing.chain, root.certificate);
    assert_ne!(issuing.key_id, root.key_id);
}

#[tokio::test]
async fn a_subordinate_near_its_end_is_renewed_with_the_key_that_it_has() {
    let place = Place::new("ca").await;
    place.apply::<Object>("root", json!({"root": {}})).await;
    let spec = json!({"subordinate": {"issuerRef": {"name": "root"}}, "validity": "12s", "backdate": "1s"});
    place.apply::<Object>("issuing", spec).await;
    let first = place.ready::<Object>("issuing", "Ready").await.status.unwrap();
    let key = place.secret_text("issuing-ca", "tls.key").await;

    let mut renewed = first.clone();
    super::until("the renewal", async || {
        place.touch::<Object>("issuing").await;
        renewed = place.api::<Object>().get("issuing").await?.status.unwrap_or_default();
        Ok(renewed.sha256 != first.sha256)
    })
    .await;
    assert_eq!(renewed.key_id, first.key_id);
    assert!(renewed.not_after.unwrap().0 > first.not_after.unwrap().0);
    assert_eq!(place.secret_text("issuing-ca", "tls.key").await, key);
    let ledger = &place.world.running.ledger;
    let known = ledger
        .authority(first.key_id.as_deref().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(Some(known.record.fingerprint.to_string()), renewed.sha256);
}

#[tokio::test]
async fn a_ca_near_its_end_says_so() {
    let place = Place::new("ca").await;
    let (ending, pem_key) = foreign("Ending", now() - 9000, Duration::from_hours(3));
    let data = [("tls.crt", pem(&ending)), ("tls.key", pem_key)];
    place
        .secret("ending", &data.each_ref().map(|(k, v)| (*k, v.as_str())))
        .await;
    let spec = json!({"secret": {"secretRef": {"name": "ending"}}});
    place.apply::<Object>("ending", spec).await;
    place.apply::<Object>("fresh", json!({"root": {}})).await;
    for (name, soon) in [("ending", "True"), ("fresh", "False")] {
        let conditions = place.ready::<Object>(name, "Ready").await.status.unwrap().conditions;
        let found = conditions.iter().find(|c| c.type_ == "ExpiringSoon").unwrap();
        assert_eq!(found.status, soon, "{name}: {}", found.message);
    }
}

#[tokio::test]
async fn a_ca_signed_outside_exports_its_request_and_takes_the_certificate_back() {
    let place = Place::new("ca").await;
    place
        .apply::<Object>("outside", json!({"external": {}, "commonName": "Outside"}))
        .await;
    let waiting = place
        .ready::<Object>("outside", "AwaitingCertificate")
        .await
        .status
        .unwrap();
    let request = waiting.csr.unwrap();
    let csr = Csr::parse(&csr_from_pem(&request).unwrap(), &CsrPolicy::default()).unwrap();

    let (upper, _) = foreign("Upper", now(), Duration::from_hours(48));
    let stranger = upper
        .sign_subordinate(key().public_key(), &CaProfile::named("Outside"), now())
        .unwrap();
    let path = |own: &[u8]| certificates_to_pem([own, upper.certificate_der().as_ref()]);
    place
        .apply::<Object>(
            "outside",
            json!({"external": {"certificate": path(&stranger)}, "commonName": "Outside"}),
        )
        .await;
    let refused = place.ready::<Object>("outside", "KeyMismatch").await.status.unwrap();
    assert_eq!(
        refused.csr.as_ref(),
        Some(&request),
        "the request stays the same until it is signed"
    );

    let signed = upper
        .sign_subordinate(csr.public_key(), &CaProfile::named("Outside"), now())
        .unwrap();
    place
        .apply::<Object>(
            "outside",
            json!({"external": {"certificate": path(&signed)}, "commonName": "Outside"}),
        )
        .await;
    let ready = place.ready::<Object>("outside", "Ready").await.status.unwrap();
    assert_eq!(certificates_from_pem(&ready.certificate.unwrap()).unwrap(), [signed]);
}

#[tokio::test]
async fn each_fault_of_a_ca_brought_along_has_its_reason() {
    let place = Place::new("ca").await;
    let (good, good_key) = foreign("Brought", now(), Duration::from_hours(48));
    let (expired, expired_key) = foreign("Old", now() - 48 * 3600, Duration::from_hours(24));
    let leaf_key = key();
    let request = LeafRequest {
        subject: &LeafSubject::common_name("device").unwrap(),
        public_key: leaf_key.public_key(),
        usage: LeafUsage::Device,
        validity: Duration::from_hours(1),
        backdate: Duration::ZERO,
    };
    let leaf = good.issue(&request, now()).unwrap();
    let leaf_key = leaf_key.to_pkcs8_pem().expose_secret().to_owned();

    place
        .apply::<Object>("brought", json!({"secret": {"secretRef": {"name": "brought"}}}))
        .await;
    place.ready::<Object>("brought", "SecretNotFound").await;
    for (certificate, key, reason) in [
        (pem(&good), expired_key.as_str(), "KeyMismatch"),
        (pem(&expired), expired_key.as_str(), "Expired"),
        (certificates_to_pem([&leaf.der]), leaf_key.as_str(), "NotCa"),
        ("nothing".to_owned(), good_key.as_str(), "NoCertificate"),
        (pem(&good), "nothing", "KeyNoKey"),
    ] {
        place
            .secret("brought", &[("tls.crt", &certificate), ("tls.key", key)])
            .await;
        place.touch::<Object>("brought").await;
        place.ready::<Object>("brought", reason).await;
    }
    place
        .secret("brought", &[("tls.crt", &pem(&good)), ("tls.key", &good_key)])
        .await;
    place.touch::<Object>("brought").await;
    let ready = place.ready::<Object>("brought", "Ready").await.status.unwrap();
    assert_eq!(ready.key_id, Some(good.key_id().to_string()));

    place
        .api::<Secret>()
        .delete("brought", &DeleteParams::default())
        .await
        .unwrap();
    place.touch::<Object>("brought").await;
    place.ready::<Object>("brought", "KeyLost").await;
}
