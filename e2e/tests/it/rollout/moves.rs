//! A fleet moves to another CA in waves: what its devices must trust first, then their certificates.

use certwave_crds::{CertificateAuthority, Fleet, RotationPhase, RotationStatus};
use certwave_e2e::stack::objects;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};
use crate::faults::authority::create;
use crate::faults::world::patch;

/// Soak of the first wave, milliseconds.
const SOAK: i64 = 2_000;

async fn move_to(world: &mut Staged, ids: &[String], name: &str, ca: &CertificateAuthority) -> RotationStatus {
    let before = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        name,
        &strategy(&json!({
            "reason": "CAChange", "issuerRef": { "name": ca.metadata.name },
            "waves": [
                { "name": "canary", "count": 2, "selector": canaries, "soak": "2s" },
                { "name": "rest", "percent": 100 },
            ],
            "limits": { "perGroup": { "by": "site", "maxUnavailable": 2 } },
        })),
    );
    let status = world.phase(name, RotationPhase::Complete).await;
    assert_eq!(
        (status.waves[0].confirmed, status.waves[1].confirmed),
        (2, 6),
        "{status:#?}"
    );
    world.wait_renewed(ids, &before).await;
    let key = ca.status.as_ref().unwrap().key_id.clone();
    for device in world.stack.devices().await.unwrap() {
        let current = device.status.unwrap().certificates.current.unwrap();
        assert_eq!(current.issuer, key, "{}", device.spec.device_id);
    }
    // Not even the anchor reached the second wave before the first had soaked.
    let spans: Vec<_> = world.history().spans(name).into_iter().map(Option::unwrap).collect();
    assert!(spans[1].first_sent >= spans[0].last_confirmed + SOAK, "{spans:?}");
    let to = json!({ "spec": { "issuerRef": { "name": ca.metadata.name } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &to).await;
    world.sound(MAX_IN_FLIGHT, 2).await;
    status
}

#[tokio::test]
async fn a_fleet_moves_to_another_intermediate_and_to_another_root_in_waves() {
    let mut world = Staged::new("moves").await;
    let ids = world.enrol("m", &fleet(8, 2, &["north", "south"]), &[]).await;
    let line = create(
        &world,
        "line",
        &json!({ "subordinate": { "issuerRef": { "name": objects::CA } } }),
    )
    .await;
    move_to(&mut world, &ids, "to-line", &line).await;
    for id in &ids {
        assert_eq!(
            world.history().kinds(id),
            ["enrol", "rotate"],
            "{id}: its root is the same"
        );
    }

    // The broker lets holders of both in before the first device moves.
    let other = create(&world, "other", &json!({ "root": {} })).await;
    let secret: Secret = world.stack.objects().get(objects::SERVER_SECRET).await.unwrap();
    let data = secret.data.unwrap();
    let pem = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let both = pem("ca.crt") + &other.status.clone().unwrap().certificate.unwrap();
    world
        .stack
        .broker
        .set_certificates(&both, &pem("tls.crt"), &pem("tls.key"))
        .unwrap();
    world.stack.broker.restart().await.unwrap();
    move_to(&mut world, &ids, "to-other", &other).await;
    for id in &ids {
        let kinds = world.history().kinds(id);
        assert_eq!(kinds, ["enrol", "rotate", "trust", "rotate"], "{id}");
    }
}
