//! The stack that demo and benchmarks stand on.

use certwave_crds::{Broker, CertificateAuthority, Fleet};
use certwave_e2e::stack::{FleetOptions, Stack, objects};

use crate::shared;

const OPTIONS: FleetOptions = FleetOptions {
    max_in_flight: 5,
    step_timeout: "10s",
    trial_timeout: "5s",
    job_timeout: "30s",
};

#[tokio::test]
async fn the_api_server_takes_every_object_of_the_stack() {
    let stack = Stack::on(shared::api().await, "stack").await.unwrap();
    stack.apply_foundation(&OPTIONS).unwrap();
    stack
        .declare_devices((0..20).map(|number| format!("meter-{number:05}")))
        .await
        .unwrap();
    stack.rotate("now").unwrap();

    stack.objects::<CertificateAuthority>().get(objects::CA).await.unwrap();
    let broker = stack.objects::<Broker>().get(objects::BROKER).await.unwrap();
    assert!(broker.spec.url.ends_with(&stack.broker.device_address().to_string()));
    let fleet = stack.objects::<Fleet>().get(objects::FLEET).await.unwrap();
    assert_eq!(fleet.spec.rotation.limits.max_in_flight, 5);
    assert_eq!(stack.devices().await.unwrap().len(), 20);
    assert!(stack.rotation("now").await.unwrap().status.is_none());
}
