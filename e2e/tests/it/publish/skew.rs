//! A controller whose clock is wrong.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use certwave_crds::{DeviceCertificate, DeviceState, Fleet};
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::wait_for;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use serde_json::json;

use super::{condition, numbers, openssl, served};
use crate::faults::world::{World, patch};

const SOON: Duration = Duration::from_secs(90);

async fn fleet(stack: &Stack) -> Result<(Fleet, Condition)> {
    let fleet = stack.objects::<Fleet>().get(objects::FLEET).await?;
    let status = fleet.status.as_ref().context("no status")?;
    let found = status.conditions.iter().find(|c| c.type_ == "ClockSkew");
    let found = found.context("no condition yet")?.clone();
    Ok((fleet, found))
}

/// Starts the controller with a clock that is off, revokes a device, and sees what goes on and what does not.
async fn wrong(name: &str, off: &str, says: &str) {
    let (mut world, _proxy) = World::behind_proxy(name, 5).await;
    let ids = world.enrol("m", 2, &[]).await;
    let before = numbers(&condition(&world.stack, "ClockSkew", "False").await);
    world.stack.stop_controller().unwrap();
    world.stack.set_clock(Some(off));
    world.stack.start_controller().await.unwrap();

    condition(&world.stack, "ClockSkew", "True").await;
    let told = wait_for("the Fleet to say so", SOON, || async {
        let (_, found) = fleet(&world.stack).await?;
        ensure!(found.status == "True", "{found:?}");
        Ok(found.message)
    });
    let told = world.told(told.await);
    assert!(
        told.contains(says) && told.contains("nothing is retired, pruned or archived"),
        "{told}"
    );

    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[0], &revocation).await;
    let said = wait_for("the CRL that says it", SOON, || async {
        let devices = world.stack.objects::<DeviceCertificate>();
        let status = devices.get(&ids[0]).await?.status.context("no status")?;
        ensure!(status.state == Some(DeviceState::Revoked), "{:?}", status.state);
        let crl = status.revocation.and_then(|r| r.crl).context("in no CRL yet")?;
        let object = super::authority(&world.stack).await?;
        let mut shown = numbers(&object).into_iter();
        let month = shown.find(|(scope, number)| scope.starts_with("20") && *number >= crl.number);
        let (month, number) = month.context("the CA does not show it yet")?;
        Ok((object, month, number))
    });
    let (object, month, number) = world.told(said.await);
    let last = before.iter().find(|(scope, _)| *scope == month).map(|(_, last)| *last);
    assert!(last.is_none_or(|last| number > last), "{last:?} {number}");
    // By the right clock it is neither of the future nor over.
    let file = served(&world.stack, &object, &month).await;
    let ca = world.stack.directory().join("ca.pem");
    std::fs::write(&ca, object.status.unwrap().certificate.unwrap()).unwrap();
    let dates = openssl(&["crl", "-noout", "-lastupdate", "-nextupdate", "-in"], &[&file]).unwrap();
    let date = |mark: &str| {
        let text = dates.lines().find_map(|line| line.strip_prefix(mark)).unwrap();
        let parsed = k8s_openapi::jiff::fmt::strtime::parse("%b %d %H:%M:%S %Y GMT", text).unwrap();
        parsed
            .to_datetime()
            .unwrap()
            .to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC)
            .unwrap()
            .timestamp()
    };
    let now = k8s_openapi::jiff::Timestamp::now();
    assert!(date("lastUpdate=") <= now && now < date("nextUpdate="), "{dates}");

    let devices = world
        .stack
        .objects::<DeviceCertificate>()
        .list(&ListParams::default())
        .await
        .unwrap();
    for device in devices.items {
        assert_ne!(device.status.unwrap().state, Some(DeviceState::Expired));
    }
    let (counted, _) = fleet(&world.stack).await.unwrap();
    assert_eq!(counted.status.unwrap().counts.expired, 0);

    world.stack.stop_controller().unwrap();
    world.stack.set_clock(None);
    world.stack.start_controller().await.unwrap();
    condition(&world.stack, "ClockSkew", "False").await;
    let risen = wait_for("the CRLs that it finds to be read back", SOON, || async {
        let shown = numbers(&super::authority(&world.stack).await?);
        let there = shown.iter().any(|(scope, newer)| *scope == month && *newer >= number);
        ensure!(there, "{month}: {number}: {shown:?}");
        Ok(())
    });
    world.told(risen.await);
}

#[tokio::test]
async fn with_its_clock_an_hour_behind_crls_go_on_and_nothing_ends() {
    wrong("behind", "-1h", "about 60 minutes behind").await;
}

#[tokio::test]
async fn with_its_clock_a_year_ahead_crls_go_on_and_nothing_ends() {
    wrong("ahead", "+1y", "about 365 days ahead").await;
}
