//! The certificates that sign: renewed by themselves, and told of while there is time.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::ensure;
use certwave_e2e::{http, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::json;

use super::judges::{self, Said};
use super::world;

#[tokio::test]
async fn answers_go_on_while_their_signer_is_renewed() {
    let stack = world::controller().await;
    let ca = world::create(&stack, "quick", json!({ "ocsp": { "signerValidity": "40s" } })).await;
    let asked = ca.asked(ca.own_serial());
    let mut signers = BTreeSet::new();
    let end = Instant::now() + world::SOON;
    while signers.len() < 2 {
        assert!(Instant::now() < end, "it is not renewed: {signers:?}");
        assert_eq!(judges::openssl(asked, "sha1", true).unwrap(), Said::Good);
        assert_eq!(judges::openssl(asked, "sha256", false).unwrap(), Said::Good);
        assert_eq!(judges::go(asked, "sha256", "GET").unwrap(), Said::Good);
        signers.insert(world::signer(&stack, "quick").await.unwrap());
    }
    world::expiring(&stack, "quick", "False").await;
}

#[tokio::test]
async fn a_signer_whose_secret_was_deleted_is_made_anew_and_answers_go_on() {
    let stack = world::controller().await;
    let ca = world::create(&stack, "careless", json!({})).await;
    let asked = ca.asked(ca.own_serial());
    let before = world::signer(&stack, "careless").await.unwrap();
    let secrets = stack.objects::<Secret>();
    secrets.delete("careless-ocsp", &DeleteParams::default()).await.unwrap();
    assert_eq!(judges::openssl(asked, "sha256", true).unwrap(), Said::Good);
    world::touch(&stack, "careless").await;
    wait_for("another signer", world::SOON, || async {
        ensure!(judges::openssl(asked, "sha256", true)? == Said::Good);
        let now = world::signer(&stack, "careless").await?;
        ensure!(now != before, "it is the one before");
        Ok(())
    })
    .await
    .unwrap();
    let secret = secrets.get("careless-ocsp").await.unwrap();
    assert_eq!(
        secret.metadata.owner_references.unwrap_or_default()[0].name,
        "careless",
        "it goes with its CA"
    );
    assert_eq!(judges::all(asked).unwrap(), Said::Good);
}

#[tokio::test]
async fn a_ca_that_cannot_renew_its_signer_says_so_before_the_end_and_goes_on_when_it_can() {
    let stack = world::controller().await;
    let ca = world::create(&stack, "lost", json!({ "ocsp": { "signerValidity": "40s" } })).await;
    let asked = ca.asked(ca.own_serial());
    let secrets = stack.objects::<Secret>();
    let kept = secrets.get("lost-ca").await.unwrap();
    secrets.delete("lost-ca", &DeleteParams::default()).await.unwrap();
    world::touch(&stack, "lost").await;
    assert_eq!(judges::openssl(asked, "sha256", true).unwrap(), Said::Good);

    let told = world::expiring(&stack, "lost", "True").await;
    assert_eq!(told.reason, "KeyLost", "{}", told.message);
    assert!(
        told.message.contains("the CA cannot certify another one"),
        "{}",
        told.message
    );
    let key_id = ca.object.status.as_ref().unwrap().key_id.clone().unwrap();
    let metrics = stack.controller_metrics().await.unwrap();
    let label = format!("issuer=\"{key_id}\"");
    let ends = http::sample(&metrics, "certwave_ocsp_signer_not_after_timestamp_seconds", &[&label]);
    assert!(ends.is_some(), "{metrics}");
    world::told(asked, judges::try_later()).await;
    wait_for("the end in the condition", world::SOON, || async {
        let told = world::expiring(&stack, "lost", "True").await;
        ensure!(told.message.contains("tryLater since"), "{}", told.message);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(judges::all(asked).unwrap(), judges::try_later());

    let again = Secret {
        metadata: ObjectMeta {
            name: kept.metadata.name,
            labels: kept.metadata.labels,
            annotations: kept.metadata.annotations,
            ..ObjectMeta::default()
        },
        ..kept
    };
    secrets.create(&PostParams::default(), &again).await.unwrap();
    world::touch(&stack, "lost").await;
    world::told(asked, Said::Good).await;
    world::expiring(&stack, "lost", "False").await;
}
