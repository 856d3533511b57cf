//! The API server of another minor version: the oldest that the chart takes.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use certwave_crds::{DeviceCertificate, RotationPhase};
use certwave_e2e::api::ApiServer;
use certwave_e2e::http::sample;
use certwave_e2e::stack::Stack;
use certwave_e2e::wait_for;
use serde_json::json;

use crate::faults::world::{SOON, World, patch};

#[tokio::test]
async fn devices_enrol_rotate_and_are_revoked_on_the_oldest_kubernetes() {
    let Some(api) = ApiServer::start_oldest().await.unwrap() else {
        return;
    };
    let version = api.client().await.unwrap().apiserver_version().await.unwrap();
    let chart = std::fs::read_to_string(certwave_e2e::chart::directory().join("Chart.yaml")).unwrap();
    let oldest = format!("kubeVersion: \">={}.{}.0-0\"", version.major, version.minor);
    assert!(chart.contains(&oldest), "the chart does not say {oldest}");

    api.apply_crds().unwrap();
    crate::chart::is_taken(&api).await;
    let stack = Stack::on(Arc::new(api), "oldest").await.unwrap();
    let mut world = World::on(stack, 2).await;
    let ids = world.enrol("m", 3, &[]).await;
    let before = world.certificates().await;
    world.rotate("run", &json!({}));
    assert_eq!(world.ended("run").await.phase, Some(RotationPhase::Complete));
    world.wait_renewed(&ids, &before).await;
    world.verify().await;

    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[0], &revocation).await;
    let shown = wait_for("the revocation to be shown", SOON, || async {
        let revoked = world.device_condition(&ids[0], "Revoked").await.context("nothing")?;
        ensure!(revoked.status == "True", "{revoked:?}");
        Ok(())
    });
    world.told(shown.await);
    let metrics = world.stack.controller_metrics().await.unwrap();
    let errors = sample(&metrics, "certwave_reconcile_errors_total", &[]);
    assert!(errors.is_none_or(|errors| errors < 1.0), "{}", world.log());
}
