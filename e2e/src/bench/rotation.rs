//! How fast a fleet rotates, and what that costs the API server.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{FLEET, Report, number};
use crate::api::ApiServer;
use crate::http::sample;
use crate::stack::{Simulation, Stack, objects};
use crate::wait::wait_for;

const DEVICES: usize = 2_000;
const PATIENCE: Duration = Duration::from_mins(15);
/// Seldom enough not to weigh on what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What passes within this time after the last certificate belongs to its price.
const A_MOMENT: Duration = Duration::from_secs(1);

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
    settle(&mut stack, DEVICES, start).await?;
    report.add(
        "enrolment.throughput",
        number(DEVICES) / start.elapsed().as_secs_f64(),
        "1/s",
    )?;

    let writes = writes(&stack.api).await?;
    let (start, rotation) = (Instant::now(), objects::rotation(stack.namespace(), "all"));
    let confirmed = run(&mut stack, DEVICES, &rotation).await?;
    report.add("rotation.throughput", confirmed / start.elapsed().as_secs_f64(), "1/s")?;
    // Statuses are written a little later than what they tell: wait for them, they belong to the price.
    settle(&mut stack, DEVICES, start).await?;
    // One write was the Rotation's own creation.
    let written = self::writes(&stack.api).await? - writes - 1.0;
    report.add("rotation.api_writes", written / confirmed.max(1.0), "1/rotation")?;

    let (start, rotation) = (Instant::now(), staged(stack.namespace()));
    let confirmed = run(&mut stack, DEVICES, &rotation).await?;
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

/// Creates a Rotation, waits until it is over for all devices and returns how many it confirmed.
pub(super) async fn run(stack: &mut Stack, devices: usize, rotation: &Value) -> Result<f64> {
    stack.api.apply(&rotation.to_string())?;
    let name = rotation["metadata"]["name"].as_str().unwrap_or_default();
    confirm(stack, name, devices, Instant::now()).await
}

/// Waits until every one of so many devices is active.
pub(super) async fn settle(stack: &mut Stack, count: usize, start: Instant) -> Result<()> {
    loop {
        stack.check_running()?;
        let devices = stack.devices().await?;
        let active = |device: &&certwave_crds::DeviceCertificate| {
            let status = device.status.as_ref();
            status.is_some_and(|status| status.state == Some(certwave_crds::DeviceState::Active))
        };
        let active = devices.iter().filter(active).count();
        if active == count {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "{active} of {count} devices are active; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the controller counts so many devices with these labels.
pub(super) async fn counted(stack: &Stack, count: usize, with: &[&str], patience: Duration) -> Result<()> {
    wait_for("the controller to count all devices", patience, || async {
        let counted = sample(&stack.controller_metrics().await?, "certwave_devices", with).unwrap_or_default();
        ensure!(counted >= number(count), "{counted} of {count}");
        Ok(())
    })
    .await
}

/// Waits until the rotation is over for all devices and returns how many it confirmed.
async fn confirm(stack: &mut Stack, name: &str, devices: usize, start: Instant) -> Result<f64> {
    loop {
        stack.check_running()?;
        let counts = stack
            .rotation(name)
            .await?
            .status
            .map(|status| status.counts)
            .unwrap_or_default();
        let ended = counts.confirmed + counts.failed + counts.timed_out + counts.rejected + counts.rolled_back;
        if usize::try_from(ended)? >= devices {
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

/// Writes that the API server has answered so far.
pub(super) async fn writes(api: &ApiServer) -> Result<f64> {
    Ok(answered(
        &api.metrics().await?,
        &["POST", "PUT", "PATCH", "APPLY", "DELETE"],
        &[],
    ))
}

/// Waits until a second passes in which hardly anybody writes: what is written late is written by then.
pub(super) async fn quiet(api: &ApiServer, patience: Duration) -> Result<()> {
    wait_for("the API server to be left alone", patience, || async {
        let before = writes(api).await?;
        tokio::time::sleep(A_MOMENT).await;
        let written = writes(api).await? - before;
        ensure!(written <= 1.0, "{written} writes within {A_MOMENT:?}");
        Ok(())
    })
    .await
}

/// Reads that the API server has answered so far. Those without a resource ask for health, metrics and the sorts of objects; those
/// of Rotations are the benchmark's own, which looks how far it is.
pub(super) async fn reads(api: &ApiServer) -> Result<f64> {
    Ok(answered(&api.metrics().await?, &["GET", "LIST"], &["", "rotations"]))
}

/// Requests with one of these verbs that the API server has answered so far, as its metrics tell. Leases are left out: they are paid
/// for time, not for rotations. So are these other resources.
fn answered(metrics: &str, verbs: &[&str], without: &[&str]) -> f64 {
    let count = |labels: &[&str]| sample(metrics, "apiserver_request_total", labels).unwrap_or_default();
    let of = |verb: &&str| {
        let verb = format!("verb=\"{verb}\"");
        let others = without.iter().chain(&["leases"]);
        // With the comma, for `subresource` ends in the same way.
        let others = others.map(|resource| count(&[&verb, &format!(",resource=\"{resource}\"")]));
        count(&[&verb]) - others.sum::<f64>()
    };
    verbs.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_without_leases() {
        let metrics = "\
            apiserver_request_total{group=\"x\",resource=\"certificates\",subresource=\"status\",verb=\"PUT\"} 5\n\
            apiserver_request_total{group=\"x\",resource=\"leases\",subresource=\"\",verb=\"PUT\"} 70\n\
            apiserver_request_total{group=\"\",resource=\"secrets\",subresource=\"\",verb=\"GET\"} 11\n\
            apiserver_request_total{group=\"\",resource=\"\",subresource=\"/metrics\",verb=\"GET\"} 900\n\
            apiserver_request_total{group=\"\",resource=\"secrets\",subresource=\"\",verb=\"WATCH\"} 3\n";
        let is = |count: f64, expected: f64| assert!((count - expected).abs() < 0.1, "{count}, not {expected}");
        is(answered(metrics, &["PUT", "PATCH"], &[]), 5.0);
        is(answered(metrics, &["GET", "LIST"], &[""]), 11.0);
    }
}
