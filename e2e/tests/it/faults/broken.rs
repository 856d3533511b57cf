//! A broker that is down, that is somebody else, that refuses the controller: said on the Broker, and mended.

use certwave_crds::Broker;
use certwave_e2e::identity::Authority;
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::world::{ENDS, World};

/// Waits until the Broker says whether the controller is connected, with one of these words.
async fn says(world: &World, connected: bool, words: &[&str]) {
    let status = if connected { "True" } else { "False" };
    let what = format!("Connected={status} {words:?}");
    let said = wait_for(&what, ENDS, || async {
        let broker: Broker = world.stack.objects().get(objects::BROKER).await?;
        let shown = broker.status.unwrap_or_default();
        let condition = shown.conditions.iter().find(|condition| condition.type_ == "Connected");
        let fits = condition.is_some_and(|condition| {
            condition.status == status && words.iter().any(|word| condition.message.contains(word))
        });
        anyhow::ensure!(fits && shown.connected == connected, "{condition:?}");
        Ok(())
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}\n{}", world.log()));
}

#[tokio::test]
async fn a_broker_says_why_it_cannot_be_reached_and_heals_when_it_is_mended() {
    let mut world = World::new("broker", 3).await;
    let ids = world.enrol("m", 3, &[]).await;
    let first = world.certificates().await;
    says(&world, true, &["connected"]).await;
    world.rotate("now", &json!({}));

    let stranger = Authority::new("stranger").unwrap();
    let imposter = stranger.server("127.0.0.1").unwrap();
    let secret: Secret = world.stack.objects().get(objects::SERVER_SECRET).await.unwrap();
    let data = secret.data.unwrap();
    let pem = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let (ca, certificate, key) = (pem("ca.crt"), pem("tls.crt"), pem("tls.key"));
    let broker = &mut world.stack.broker;

    broker.stop().unwrap();
    says(&world, false, &["refused"]).await;

    let broker = &mut world.stack.broker;
    broker
        .set_certificates(&ca, &imposter.certificate, &imposter.key)
        .unwrap();
    broker.start().await.unwrap();
    says(&world, false, &["UnknownIssuer"]).await;

    let secret: Secret = world.stack.objects().get("root-ca").await.unwrap();
    let ca_key = String::from_utf8(secret.data.unwrap()["tls.key"].0.clone()).unwrap();
    let ended = Authority::of(ca.clone(), &ca_key).unwrap();
    let ended = ended.expired_server("127.0.0.1").unwrap();
    let broker = &mut world.stack.broker;
    broker.set_certificates(&ca, &ended.certificate, &ended.key).unwrap();
    broker.restart().await.unwrap();
    says(&world, false, &["expired"]).await;

    let broker = &mut world.stack.broker;
    broker
        .set_certificates(&stranger.certificate(), &certificate, &key)
        .unwrap();
    broker.restart().await.unwrap();
    says(&world, false, &["UnknownCA", "DecryptError", "alert"]).await;

    let broker = &mut world.stack.broker;
    broker.set_certificates(&ca, &certificate, &key).unwrap();
    broker.restart().await.unwrap();
    says(&world, true, &["connected"]).await;
    world.ended("now").await;
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
}
