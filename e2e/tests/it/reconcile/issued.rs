//! `Broker`: its certificates, its id, what it lacks.

use certwave_crds::{Broker, CertificateAuthority};
use certwave_pki::{certificates_from_pem, parse_certificate_info_pem};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{Place, broker_spec, message};

#[tokio::test]
async fn a_broker_gets_its_certificates_from_its_ca() {
    let place = Place::new("broker").await;
    let mut spec = broker_spec(&place.namespace);
    spec["serverCertificate"] =
        json!({"secretName": "mqtt-server", "dnsNames": ["mqtt.example.com"], "ipAddresses": ["127.0.0.1"]});
    place.apply::<Broker>("mqtt", spec.clone()).await;
    place.ready::<Broker>("mqtt", "CANotFound").await;
    place.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    let status = place.ready::<Broker>("mqtt", "Ready").await.status.unwrap();
    assert!(!status.connected);
    let root = place
        .ready::<CertificateAuthority>("root", "Ready")
        .await
        .status
        .unwrap();

    let names = [
        ("mqtt-controller", "~controller".to_owned()),
        ("mqtt-control", format!("~control.{}", place.namespace)),
        ("mqtt-server", "mqtt.example.com".to_owned()),
    ];
    for (secret, name) in names {
        let info = parse_certificate_info_pem(&place.secret_text(secret, "tls.crt").await).unwrap();
        assert_eq!(info.common_name, Some(name));
        let trusted = certificates_from_pem(&place.secret_text(secret, "ca.crt").await);
        assert_eq!(trusted, certificates_from_pem(root.certificate.as_ref().unwrap()));
    }

    // Another name: another certificate; the same spec: the same certificate.
    let before = place.secret_text("mqtt-controller", "tls.crt").await;
    spec["serverCertificate"]["dnsNames"] = json!(["broker.example.com"]);
    place.apply::<Broker>("mqtt", spec).await;
    super::until("the new server certificate", async || {
        let info = parse_certificate_info_pem(&place.secret_text("mqtt-server", "tls.crt").await)?;
        Ok(info.common_name.as_deref() == Some("broker.example.com"))
    })
    .await;
    assert_eq!(place.secret_text("mqtt-controller", "tls.crt").await, before);
}

#[tokio::test]
async fn a_broker_id_belongs_to_the_broker_that_had_it_first() {
    let (first, second) = (Place::new("first").await, Place::new("second").await);
    for place in [&first, &second] {
        place.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    }
    first.apply::<Broker>("mqtt", broker_spec(&first.namespace)).await;
    let holder = first.ready::<Broker>("mqtt", "Ready").await;
    // Creation times have seconds.
    super::until("another second", async || {
        let begun = holder.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
        Ok(super::now() > begun)
    })
    .await;
    second.apply::<Broker>("mqtt", broker_spec(&first.namespace)).await;
    let refused = second.ready::<Broker>("mqtt", "DuplicateId").await;
    assert!(message(&refused).contains(&first.namespace));
    assert!(
        second
            .api::<Secret>()
            .get_opt("mqtt-controller")
            .await
            .unwrap()
            .is_none()
    );

    first.delete::<Broker>("mqtt").await;
    second.ready::<Broker>("mqtt", "Ready").await;
}

#[tokio::test]
async fn certificates_of_a_persons_own_must_be_there_and_bear_the_right_names() {
    let place = Place::new("broker").await;
    place.foundation().await;
    let own = json!({
        "id": format!("{}-own", place.namespace), "url": "mqtts://127.0.0.1:1",
        "trust": {"secretRef": {"name": "trust"}},
        "credential": {"secretRef": {"name": "client"}}, "controlSecretRef": {"name": "control"},
    });
    place.apply::<Broker>("own", own).await;
    place.ready::<Broker>("own", "TrustNotFound").await;
    let root = place.secret_text("root-ca", "tls.crt").await;
    place.secret("trust", &[("ca.crt", "nothing")]).await;
    place.touch::<Broker>("own").await;
    place.ready::<Broker>("own", "InvalidTrust").await;
    place.secret("trust", &[("ca.crt", &root)]).await;
    place.touch::<Broker>("own").await;
    place.ready::<Broker>("own", "SecretNotFound").await;

    let copy = async |from: &str, to: &str| {
        let (chain, key) = (
            place.secret_text(from, "tls.crt").await,
            place.secret_text(from, "tls.key").await,
        );
        place
            .secret(to, &[("tls.crt", &chain), ("tls.key", &key), ("ca.crt", &root)])
            .await;
        place.touch::<Broker>("own").await;
    };
    copy("mqtt-control", "client").await;
    let wrong = place.ready::<Broker>("own", "WrongName").await;
    assert!(message(&wrong).contains("~controller"));
    let (chain, key) = (
        place.secret_text("mqtt-controller", "tls.crt").await,
        place.secret_text("mqtt-control", "tls.key").await,
    );
    place.secret("client", &[("tls.crt", &chain), ("tls.key", &key)]).await;
    place.touch::<Broker>("own").await;
    place.ready::<Broker>("own", "KeyMismatch").await;
}
