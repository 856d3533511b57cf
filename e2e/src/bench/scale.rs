//! What a fleet costs the controller, the API server and etcd as it grows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certwave_crds::{CertificateAuthority, DeviceCertificate};
use certwave_ledger::Ledger as _;
use kube::Resource as _;
use serde_json::json;

use super::revocation::with_ledger;
use super::rotation::{counted, quiet, reads, run, writes};
use super::wire::cpu_seconds;
use super::{FLEET, Report, number, preload, seconds};
use crate::http::sample;
use crate::stack::{Simulation, Stack, objects};
use crate::tools::progress;
use crate::wait::wait_for;

/// Of a large fleet so many are connected and rotate; the rest have certificates and are offline. More have no port: the near ends of
/// all their connections are on one address.
const CONNECTED: usize = 10_000;
/// In flight at once while answers are timed. A wave without a brake keeps 500 in flight, and all but a few of them wait in line.
const BRAKED: u32 = 8;
const BRAKED_FOR: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_mins(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// With so many devices:
/// - `scale.first_ready`, from the start of a controller with an empty ledger until it knows them all; `scale.ready`, the same with a
///   ledger that has them;
/// - `scale.throughput`, rotations confirmed a second; and for each job, those that wait for devices that are offline among them,
///   `scale.cpu`, `scale.api_writes`, `scale.api_reads`, `scale.etcd_bytes`;
/// - after it `scale.rss` and `scale.apiserver_rss`; `scale.object` and `scale.ledger`, what a device takes on disk;
/// - `scale.answer.p99_full`, from a device's message to its answer, in that Rotation; `scale.answer.p99` in one with few in flight,
///   and `scale.answer.rate`, how many of its devices were confirmed a second.
pub(super) async fn measure(devices: usize, report: &mut Report) -> Result<()> {
    let mut stack = fleet(devices, report).await?;
    let simulation = Simulation {
        devices: devices.min(CONNECTED),
        state: None,
        report: None,
        claim: stack.create_claim(devices)?,
        seed: 1,
        connect_rate: 2_000,
        faults: Vec::new(),
    };
    let connected = simulation.devices;
    stack.start_devices(&simulation)?;
    // The others have certificates already.
    counted(&stack, devices, &["state=\"active\""], PATIENCE).await?;
    progress(&format!("{connected} of {devices} devices are connected"));

    quiet(&stack.api, PATIENCE).await?;
    let pid = stack.controller()?.id();
    let before = Spent::so_far(&stack, pid).await?;
    let unanswered = stack.controller_metrics().await?;
    let (start, rotation) = (Instant::now(), objects::rotation(stack.namespace(), "all"));
    let confirmed = run(&mut stack, connected, &rotation).await?;
    let rate = confirmed / start.elapsed().as_secs_f64();
    let p99_full = answered_below(&unanswered, &stack.controller_metrics().await?)?;
    quiet(&stack.api, PATIENCE).await?;
    let after = Spent::so_far(&stack, pid).await?;
    // Each that is offline has a job that waits for it, in the ledger and on its object.
    let jobs = confirmed + number(devices - connected);
    let each = |of: fn(&Spent) -> f64| (of(&after) - of(&before)) / jobs;
    let mut add =
        |name: &str, value: f64, unit: &'static str| report.add(format!("scale.{name}.{devices}"), value, unit);
    add("throughput", rate, "1/s")?;
    add("cpu", each(|spent| spent.cpu) * 1e3, "ms/job")?;
    add("api_writes", each(|spent| spent.writes), "1/job")?;
    add("api_reads", each(|spent| spent.reads), "1/job")?;
    add("etcd_bytes", each(|spent| spent.etcd) / 1024.0, "KiB/job")?;
    add("rss", mebibytes(stack.controller()?.resident_bytes()?), "MiB")?;
    if let Some(server) = stack.api.process() {
        add("apiserver_rss", mebibytes(server.resident_bytes()?), "MiB")?;
    }
    add("object", object_bytes(&stack).await? / 1024.0, "KiB")?;
    let ledger = std::fs::metadata(stack.ledger())?.len();
    add("ledger", mebibytes(ledger) * 1024.0 / number(devices), "KiB/device")?;
    add("answer.p99_full", p99_full * 1e3, "ms")?;
    let (p99, rate) = braked(&stack, connected).await?;
    add("answer.p99", p99 * 1e3, "ms")?;
    add("answer.rate", rate, "1/s")?;

    stack.stop_devices();
    stack.stop_controller()?;
    let ready = start_and_know(&mut stack, devices).await?;
    add("ready", ready, "s")
}

/// Starts the controller; how long it takes until it has listed every device's object and compared it with the ledger, seconds.
async fn start_and_know(stack: &mut Stack, devices: usize) -> Result<f64> {
    let before = listings(stack)?;
    let start = Instant::now();
    stack.start_controller().await?;
    listed(stack, before).await?;
    counted(stack, devices, &[], PATIENCE).await?;
    Ok(start.elapsed().as_secs_f64())
}

/// How often controllers have listed every device's object so far, as they log.
fn listings(stack: &Stack) -> Result<usize> {
    match std::fs::read_to_string(stack.controller_log()) {
        Ok(log) => Ok(log.matches("every DeviceCertificate is known").count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits until they have done it once more.
async fn listed(stack: &Stack, before: usize) -> Result<()> {
    wait_for("the controller to know every device", PATIENCE, || async {
        ensure!(listings(stack)? > before, "not every device is known");
        Ok(())
    })
    .await
}

fn mebibytes(bytes: u64) -> f64 {
    number(bytes / 1024) / 1024.0
}

/// What a device's object takes in etcd, which keeps custom resources as JSON.
async fn object_bytes(stack: &Stack) -> Result<f64> {
    let name = Simulation::device_id(1);
    let url = DeviceCertificate::url_path(&(), Some(stack.namespace()));
    let request = http::Request::get(format!("{url}/{name}")).body(Vec::new())?;
    Ok(number(stack.client().request_text(request).await?.len()))
}

/// A stack in which this many devices are declared; those that will not be connected have certificates already.
async fn fleet(devices: usize, report: &mut Report) -> Result<Stack> {
    let mut stack = Stack::prepare("scale").await?;
    stack.apply_foundation(&FLEET)?;
    stack.declare_devices((1..=devices).map(Simulation::device_id)).await?;
    progress(&format!("{devices} devices declared"));
    let first = start_and_know(&mut stack, devices).await?;
    report.add(format!("scale.first_ready.{devices}"), first, "s")?;
    if devices > CONNECTED {
        give_certificates(&mut stack, CONNECTED + 1..=devices).await?;
    }
    stack.start_broker().await?;
    Ok(stack)
}

/// Gives devices certificates as if they had enrolled, and waits until their objects show them.
async fn give_certificates(stack: &mut Stack, places: std::ops::RangeInclusive<usize>) -> Result<()> {
    let authority = stack.objects::<CertificateAuthority>().get(objects::CA).await?;
    let key_id = authority
        .status
        .and_then(|status| status.key_id)
        .context("the CA has no key")?;
    let count = places.clone().count();
    let broker = stack.namespace().to_owned();
    let ids = places.map(|place| preload::identity(&broker, &Simulation::device_id(place)));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let before = listings(stack)?;
    with_ledger(stack, async |ledger| {
        let epoch = ledger.take_epoch("bench", seconds() * 1000).await?;
        preload::give(ledger, epoch, &key_id, &ids).await
    })
    .await?;
    listed(stack, before).await?;
    counted(stack, count, &["state=\"active\""], PATIENCE).await?;
    quiet(&stack.api, PATIENCE).await?;
    progress(&format!(
        "{count} of them have certificates, and their objects show them"
    ));
    Ok(())
}

/// What was spent since everything began.
struct Spent {
    /// The controller's CPU time, seconds.
    cpu: f64,
    /// Writes that the API server answered.
    writes: f64,
    /// Reads that it answered, without those of this benchmark, which looks at the Rotation.
    reads: f64,
    /// Bytes put into etcd, revisions that were compacted later among them.
    etcd: f64,
}

impl Spent {
    async fn so_far(stack: &Stack, pid: u32) -> Result<Self> {
        let etcd = stack.api.etcd_metrics().await?;
        Ok(Self {
            cpu: cpu_seconds(pid)?,
            writes: writes(&stack.api).await?,
            reads: reads(&stack.api).await?,
            etcd: sample(&etcd, "etcd_debugging_mvcc_total_put_size_in_bytes", &[])
                .context("etcd does not say how much was put into it")?,
        })
    }
}

/// Rotates with [`BRAKED`] in flight for a while: below what time 99 of 100 messages were answered in it, seconds, and how many devices
/// were confirmed a second.
async fn braked(stack: &Stack, connected: usize) -> Result<(f64, f64)> {
    let mut rotation = objects::rotation(stack.namespace(), "braked");
    rotation["spec"]["limits"] = json!({ "maxInFlight": BRAKED, "maxPerMinute": 100_000 });
    stack.api.apply(&rotation.to_string())?;
    let confirmed = || async {
        let status = stack.rotation("braked").await?.status.unwrap_or_default();
        let confirmed = status.counts.confirmed;
        ensure!(confirmed > 0, "{confirmed} are confirmed");
        Ok(confirmed)
    };
    let first = wait_for("the first devices of the braked Rotation", PATIENCE, confirmed).await?;
    let before = stack.controller_metrics().await?;
    let start = Instant::now();
    let mut last = first;
    while start.elapsed() < BRAKED_FOR && usize::try_from(last)? < connected {
        tokio::time::sleep(LOOK_EVERY).await;
        last = confirmed().await?;
    }
    let rate = number(last - first) / start.elapsed().as_secs_f64();
    Ok((answered_below(&before, &stack.controller_metrics().await?)?, rate))
}

/// Below what time 99 of 100 messages were answered between two expositions, seconds.
fn answered_below(before: &str, after: &str) -> Result<f64> {
    histogram_quantile(0.99, "certwave_message_duration_seconds", before, after)
        .context("no message was answered meanwhile")
}

/// What Prometheus' `histogram_quantile` says of the observations between two expositions: linear within a bucket.
fn histogram_quantile(quantile: f64, name: &str, before: &str, after: &str) -> Option<f64> {
    let name = format!("{name}_bucket");
    let bounds = after.lines().filter_map(|line| {
        let bound = line.strip_prefix(&name)?.split_once("le=\"")?.1.split_once('"')?.0;
        bound.parse::<f64>().ok().map(|parsed| (bound, parsed))
    });
    let up_to = |bound: &str| {
        let label = format!("le=\"{bound}\"");
        let count = |exposition| sample(exposition, &name, &[&label]).unwrap_or_default();
        count(after) - count(before)
    };
    let rank = quantile * up_to("+Inf");
    let mut below = (0.0, 0.0);
    for (bound, upper) in bounds {
        let count = up_to(bound);
        if count >= rank && count > 0.0 {
            // More than the last finite bound nobody knows.
            let upper = if upper.is_finite() { upper } else { below.0 };
            return Some(below.0 + (upper - below.0) * (rank - below.1) / (count - below.1));
        }
        below = (upper, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "d_bucket{le=\"0.01\"} 10\nd_bucket{le=\"0.02\"} 20\nd_bucket{le=\"+Inf\"} 20\nd_count 20\n";
    const AFTER: &str = "d_bucket{le=\"0.01\"} 60\nd_bucket{le=\"0.02\"} 119\nd_bucket{le=\"+Inf\"} 120\nd_count 120\n";

    #[test]
    fn a_quantile_is_of_what_was_observed_between_two_looks() {
        let quantile = |of: f64| histogram_quantile(of, "d", BEFORE, AFTER);
        assert_eq!(quantile(0.5), Some(0.01));
        assert_eq!(quantile(0.25), Some(0.005));
        assert_eq!(quantile(0.99), Some(0.02));
        assert_eq!(quantile(1.0), Some(0.02));
        assert_eq!(histogram_quantile(0.5, "d", AFTER, AFTER), None);
    }
}
