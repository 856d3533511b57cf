//! How fast a fleet rotates, and what that costs the API server.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{FLEET, Report, number};
use crate::api::ApiServer;
use crate::http::sample;
use crate::stack::{Simulation, Stack, objects};

const DEVICES: usize = 2_000;
const PATIENCE: Duration = Duration::from_mins(15);
/// Seldom enough not to weigh on what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// 2,000 simulated devices, everything on this machine: `rotation.throughput`, from the creation of the Rotation until
/// its status shows the last device confirmed; and `rotation.api_writes` for each of them. Then the same fleet in three waves:
/// `rotation.throughput_waves`.
pub(super) async fn measure(report: &mut Report) -> Result<()> {
    let mut stack = Stack::prepare("bench").await?;
    stack.apply_foundation(&FLEET)?;
    stack.start_controller().await?;
    stack.start_broker().await?;
    let simulation = Simulation {
        devices: DEVICES,
        state: None,
        report: None,
        claim: stack.create_claim(DEVICES)?,
        seed: 1,
        connect_rate: 2_000,
        faults: Vec::new(),
    };
    stack.declare_devices(simulation.device_ids()).await?;
    let start = Instant::now();
    stack.start_devices(&simulation)?;
    settle(&mut stack, start).await?;
    report.add(
        "enrolment.throughput",
        number(DEVICES) / start.elapsed().as_secs_f64(),
        "1/s",
    )?;

    let writes = writes(&stack.api).await?;
    let (start, rotation) = (Instant::now(), objects::rotation(stack.namespace(), "all"));
    let confirmed = run(&mut stack, &rotation).await?;
    report.add("rotation.throughput", confirmed / start.elapsed().as_secs_f64(), "1/s")?;
    // Statuses are written a little later than what they tell: wait for them, they belong to the price.
    settle(&mut stack, start).await?;
    // One write was the Rotation's own creation.
    let written = self::writes(&stack.api).await? - writes - 1.0;
    report.add("rotation.api_writes", written / confirmed.max(1.0), "1/rotation")?;

    let (start, rotation) = (Instant::now(), staged(stack.namespace()));
    let confirmed = run(&mut stack, &rotation).await?;
    report.add(
        "rotation.throughput_waves",
        confirmed / start.elapsed().as_secs_f64(),
        "1/s",
    )
}

/// Three waves without soak, and else the same limits.
fn staged(namespace: &str) -> Value {
    let mut rotation = objects::rotation(namespace, "waves");
    rotation["spec"]["waves"] = json!([
        { "name": "canary", "percent": 5 },
        { "name": "early", "percent": 25 },
        { "name": "rest", "percent": 100 },
    ]);
    rotation["spec"]["limits"] = json!({ "maxInFlight": FLEET.max_in_flight, "maxPerMinute": 100_000 });
    rotation
}

/// Creates a Rotation, waits until it is over and returns how many devices it confirmed.
async fn run(stack: &mut Stack, rotation: &Value) -> Result<f64> {
    stack.api.apply(&rotation.to_string())?;
    let name = rotation["metadata"]["name"].as_str().unwrap_or_default();
    confirm(stack, name, Instant::now()).await
}

/// Waits until every device is active.
async fn settle(stack: &mut Stack, start: Instant) -> Result<()> {
    loop {
        stack.check_running()?;
        let devices = stack.devices().await?;
        let active = |device: &&certwave_crds::DeviceCertificate| {
            let status = device.status.as_ref();
            status.is_some_and(|status| status.state == Some(certwave_crds::DeviceState::Active))
        };
        let active = devices.iter().filter(active).count();
        if active == DEVICES {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "{active} of {DEVICES} devices are active; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the rotation is over and returns how many devices it confirmed.
async fn confirm(stack: &mut Stack, name: &str, start: Instant) -> Result<f64> {
    loop {
        stack.check_running()?;
        let counts = stack
            .rotation(name)
            .await?
            .status
            .map(|status| status.counts)
            .unwrap_or_default();
        let ended = counts.confirmed + counts.failed + counts.timed_out + counts.rejected + counts.rolled_back;
        if usize::try_from(ended)? >= DEVICES {
            return Ok(number(counts.confirmed));
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "the rotation stands at {counts:?}; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes that the API server has answered so far, leases left out: they are paid for time, not for rotations.
async fn writes(api: &ApiServer) -> Result<f64> {
    let text = api.metrics().await?;
    let count = |labels: &[&str]| sample(&text, "apiserver_request_total", labels).unwrap_or_default();
    let verbs = [
        "verb=\"POST\"",
        "verb=\"PUT\"",
        "verb=\"PATCH\"",
        "verb=\"APPLY\"",
        "verb=\"DELETE\"",
    ];
    Ok(verbs
        .iter()
        .map(|verb| count(&[verb]) - count(&[verb, "resource=\"leases\""]))
        .sum())
}
