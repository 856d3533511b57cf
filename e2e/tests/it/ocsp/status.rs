//! What is said of certificates.

use std::process::Command;

use certwave_crds::DeviceCertificate;
use certwave_e2e::identity::Authority;
use certwave_e2e::stack::{Simulation, objects};
use certwave_e2e::tools;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::judges::{self, Asked, HOLD, KEY_COMPROMISE, Said};
use super::world;

/// A serial number that no CA here has given.
const NEVER_ISSUED: &str = "7f00000000000000000000000000000000000001";

#[tokio::test]
async fn every_client_hears_what_a_person_said_of_a_device() {
    let stack = world::devices(2).await;
    let ca = world::ca(&stack, objects::CA).await;
    let ids = [1, 2].map(Simulation::device_id);
    let serials = [
        world::serial(&stack, &ids[0]).await,
        world::serial(&stack, &ids[1]).await,
    ];
    let (stolen, other) = (ca.asked(&serials[0]), ca.asked(&serials[1]));
    assert_eq!(judges::all(stolen).unwrap(), Said::Good);
    for (revocation, expected) in [
        (json!({ "hold": true }), HOLD),
        (json!(null), Said::Good),
        (json!({ "reason": "keyCompromise" }), KEY_COMPROMISE),
    ] {
        let patch = json!({ "spec": { "revocation": revocation } });
        world::change::<DeviceCertificate>(&stack, &ids[0], &patch).await;
        let after = world::told(stolen, expected.clone()).await;
        eprintln!("{expected:?} by OCSP {after:?} after it was said");
        assert_eq!(judges::all(stolen).unwrap(), expected);
    }
    assert_eq!(judges::all(other).unwrap(), Said::Good);
}

#[tokio::test]
async fn certificates_say_where_to_ask() {
    let stack = world::controller().await;
    let ca = world::ca(&stack, objects::CA).await;
    let pem = certwave_e2e::wait_for("the broker's certificate", world::SOON, || async {
        let secret = stack.objects::<Secret>().get(objects::SERVER_SECRET).await?;
        Ok(secret.data.unwrap_or_default()["tls.crt"].0.clone())
    })
    .await
    .unwrap();
    let file = stack.directory().join("server.pem");
    std::fs::write(&file, pem).unwrap();
    let mut show = Command::new(tools::openssl().unwrap());
    show.args(["x509", "-noout", "-serial", "-ocsp_uri", "-in"]).arg(&file);
    let text = tools::output(&mut show).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [serial, url] = lines.as_slice() else {
        panic!("{text}")
    };
    assert_eq!(*url, ca.url);
    let serial = serial.strip_prefix("serial=").unwrap();
    assert_eq!(judges::all(ca.asked(serial)).unwrap(), Said::Good);
}

#[tokio::test]
async fn what_was_never_issued_is_unknown_and_other_cas_are_nobodys_business_here() {
    let stack = world::controller().await;
    let ca = world::ca(&stack, objects::CA).await;
    let other = world::create(&stack, "other", json!({})).await;
    assert_eq!(judges::all(ca.asked(NEVER_ISSUED)).unwrap(), Said::Unknown);
    assert_eq!(judges::all(other.asked(other.own_serial())).unwrap(), Said::Good);
    // The serial number of another CA's certificate is not one of its own.
    assert_eq!(judges::all(ca.asked(other.own_serial())).unwrap(), Said::Unknown);

    let at_the_wrong_place = Asked {
        url: &ca.url,
        ..other.asked(other.own_serial())
    };
    assert_eq!(judges::all(at_the_wrong_place).unwrap(), judges::unauthorized());
    let stranger = stack.directory().join("stranger.pem");
    std::fs::write(&stranger, Authority::new("stranger").unwrap().certificate()).unwrap();
    for url in [&ca.url, &format!("http://{}/ocsp", stack.http())] {
        let asked = Asked {
            url,
            issuer: &stranger,
            serial: ca.own_serial(),
        };
        assert_eq!(judges::all(asked).unwrap(), judges::unauthorized(), "{url}");
    }
    // Without a CA in the URL the request alone says which one is meant.
    let url = format!("http://{}/ocsp", stack.http());
    let asked = Asked {
        url: &url,
        ..ca.asked(ca.own_serial())
    };
    assert_eq!(judges::all(asked).unwrap(), Said::Good);
}
