//! An API server that is there, but does not do what it is asked: 409, 410, 429, 500.

use std::time::Duration;

use certwave_crds::{DeviceCertificate, DeviceState, Fleet};
use certwave_e2e::proxy::{Requests, Share};
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::wait_for;
use http::{Method, StatusCode};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::json;

use super::intact::rotated_once;
use super::world::{ENDS, World};
use crate::shared;

#[tokio::test]
async fn statuses_arrive_though_most_writes_are_refused() {
    let (mut world, proxy) = World::behind_proxy("refused", 6).await;
    let ids = world.enrol("m", 20, &[]).await;
    let (first, process) = (world.certificates().await, world.stack.controller().unwrap().id());

    let statuses = || Requests::to(Method::PATCH, "/status");
    let faults = [
        (3, StatusCode::CONFLICT),
        (4, StatusCode::TOO_MANY_REQUESTS),
        (5, StatusCode::INTERNAL_SERVER_ERROR),
    ]
    .map(|(each, code)| proxy.refuse(statuses(), Share::Each(each), code));
    world.rotate("now", &json!({}));
    rotated_once(&mut world, "now", &ids, &first).await;

    for fault in &faults {
        assert!(fault.refused() > 0);
    }
    assert!(world.history().peak_in_flight() <= 6);
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

#[tokio::test]
async fn what_is_set_up_against_an_unwilling_api_server_is_set_up_once() {
    let mut stack = Stack::on(shared::api().await, "unwilling").await.unwrap();
    let proxy = stack.put_proxy().await.unwrap();
    let faults = [
        (Method::GET, 9, StatusCode::INTERNAL_SERVER_ERROR),
        (Method::POST, 2, StatusCode::INTERNAL_SERVER_ERROR),
        (Method::PATCH, 5, StatusCode::CONFLICT),
    ]
    .map(|(method, each, code)| proxy.refuse(Requests::to(method, "/"), Share::Each(each), code));
    let mut world = World::on(stack, 3).await;
    let ids = world.enrol("m", 6, &[]).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    rotated_once(&mut world, "now", &ids, &first).await;

    for fault in &faults {
        assert!(fault.refused() > 0);
    }
    assert_eq!(world.history().authorities(), 1, "a CA is made once");
}

#[tokio::test]
async fn watches_that_expire_in_the_middle_of_a_rotation_lose_nothing() {
    let (mut world, proxy) = World::behind_proxy("expired", 2).await;
    let ids = world.enrol("m", 8, &["--fault", "slow:1s=*"]).await;
    let extra = world.enrol("extra", 1, &[]).await;
    let (first, process) = (world.certificates().await, world.stack.controller().unwrap().id());
    world.switch_off("extra");

    world.rotate("now", &json!({}));
    world
        .when("a device in flight", |history| history.reached("accepted") > 0)
        .await;
    let lists = proxy.count(Requests::to(Method::GET, "limit="));
    proxy.expire_watches();
    let listed = wait_for("new lists", ENDS, || async {
        anyhow::ensure!(lists.matched() >= 5, "{} lists", lists.matched());
        Ok(())
    });
    world.told(listed.await);

    // Now nobody can go on where it was: what happens meanwhile is only to be seen in a new list.
    let resumptions = Requests::to(Method::GET, "watch=true");
    let forgotten = proxy.refuse(resumptions, Share::First(5), StatusCode::GONE);
    proxy.cut();
    let devices = world.stack.objects::<DeviceCertificate>();
    devices.delete(&extra[0], &DeleteParams::default()).await.unwrap();
    let late = world.declare("late", 1).await;
    world.switch_on("late", &late, &[]);
    world.lasts(Duration::from_secs(1)).await;
    proxy.mend();
    world.wait_enrolled(&late).await;
    world
        .when("the deleted one to be withdrawn", |history| {
            !history.declared().contains(&extra[0])
        })
        .await;
    assert!(forgotten.refused() > 0);

    rotated_once(&mut world, "now", &ids, &first).await;
    assert!(world.history().peak_in_flight() <= 2);
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

#[tokio::test]
async fn an_object_that_may_not_have_its_device_is_told_so_though_the_first_writes_fail() {
    let (world, proxy) = World::behind_proxy("told", 2).await;
    let ids = world.declare("m", 1).await;
    let faults = [
        (1, StatusCode::INTERNAL_SERVER_ERROR),
        (2, StatusCode::CONFLICT),
        (4, StatusCode::UNPROCESSABLE_ENTITY),
    ]
    .map(|(first, code)| {
        let status = Requests::to(Method::PATCH, "/devicecertificates/second/status");
        proxy.refuse(status, Share::First(first), code)
    });
    let mut second = objects::device(world.stack.namespace(), &ids[0]);
    second["metadata"]["name"] = json!("second");
    world.stack.api.apply(&second.to_string()).unwrap();

    let devices = world.stack.objects::<DeviceCertificate>();
    let told = wait_for("the second object to be refused", ENDS, || async {
        let state = devices.get("second").await?.status.and_then(|status| status.state);
        anyhow::ensure!(state == Some(DeviceState::Refused), "{state:?}");
        Ok(())
    });
    world.told(told.await);
    for fault in &faults {
        assert!(fault.refused() > 0, "no fault would have been noticed");
    }
    let state = devices
        .get(&ids[0])
        .await
        .unwrap()
        .status
        .and_then(|status| status.state);
    assert_ne!(state, Some(DeviceState::Refused));
}

/// Waits until these devices are in this state.
async fn all_in(stack: &Stack, ids: &[&str], state: DeviceState) {
    let what = format!("{state:?}");
    let all = wait_for(&what, ENDS, || async {
        let devices = stack.devices().await?.into_iter();
        let named = devices.filter(|device| ids.contains(&device.name_any().as_str()));
        let states: Vec<_> = named.map(|device| device.status?.state).collect();
        anyhow::ensure!(states == vec![Some(state); ids.len()], "{states:?}");
        Ok(())
    });
    all.await.unwrap();
}

#[tokio::test]
async fn devices_that_wait_for_their_fleet_are_told_and_taken_over_though_listing_them_fails_at_first() {
    let mut stack = Stack::on(shared::api().await, "waiting").await.unwrap();
    let proxy = stack.put_proxy().await.unwrap();
    stack.start_controller().await.unwrap();
    let fail = || {
        [(2, StatusCode::GONE), (3, StatusCode::INTERNAL_SERVER_ERROR)]
            .map(|(first, code)| proxy.refuse(Requests::to(Method::GET, "fieldSelector="), Share::First(first), code))
    };
    let faults = fail();
    let first = ["m-1", "m-2"];
    stack.declare_devices(first.map(str::to_owned)).await.unwrap();
    all_in(&stack, &first, DeviceState::Refused).await;
    assert!(faults.iter().all(|fault| fault.refused() > 0));
    drop(faults);
    World::prepare(&stack, 1).await;
    all_in(&stack, &first, DeviceState::Declared).await;

    // By now somebody looks after the broker, and a fleet comes late.
    let mut device = objects::device(stack.namespace(), "m-3");
    device["spec"]["fleetRef"]["name"] = json!("late");
    stack.declare([device]).await.unwrap();
    all_in(&stack, &["m-3"], DeviceState::Refused).await;
    let faults = fail();
    let mut fleet = stack.objects::<Fleet>().get(objects::FLEET).await.unwrap();
    fleet.metadata = ObjectMeta {
        name: Some("late".to_owned()),
        ..ObjectMeta::default()
    };
    // A claim is one fleet's.
    fleet.spec.enrolment.claims.clear();
    let fleets = stack.objects::<Fleet>();
    fleets.create(&PostParams::default(), &fleet).await.unwrap();
    all_in(&stack, &["m-3"], DeviceState::Declared).await;
    assert!(faults.iter().all(|fault| fault.refused() > 0));
}
