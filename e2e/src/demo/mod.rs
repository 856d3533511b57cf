//! The demonstration, step by step.

mod check;
mod follow;
mod keep;
mod person;
mod retire;
mod rollback;
mod staging;
mod stolen;
pub(crate) mod verifier;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certwave_crds::RotationPhase;

use crate::screen::Screen;
use crate::stack::{Fault, FleetOptions, Simulation, Stack};
use crate::tools;
use staging::Staging;

/// The faults that the demo plays, one device each.
const FAULTS: [(Fault, &str); 3] = [
    (Fault::Rejects, "refused the job"),
    (Fault::IsRefused, "was not let in with the new one"),
    (Fault::ReachesNobody, "reached nobody with the new one"),
];
const ROTATION: &str = "demo";

/// What a person may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `DEVICES`: how many devices; 100 where left out, at least 4.
    pub devices: usize,
    /// `KEEP=1`: leave everything running until Ctrl-C.
    pub keep: bool,
}

impl Options {
    /// Reads `DEVICES` and `KEEP`.
    ///
    /// # Errors
    /// When `DEVICES` is no number, or too small for three faults.
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let devices = match set("DEVICES") {
            Some(number) => number
                .parse()
                .ok()
                .filter(|number| (4..=99_999).contains(number))
                .with_context(|| {
                    format!("DEVICES={number}: it takes a number from 4 to 99999, as three devices fail")
                })?,
            None => 100,
        };
        Ok(Self {
            devices,
            keep: set("KEEP").is_some_and(|value| value != "0"),
        })
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Devices with a new certificate, verified.
    pub rotated: usize,
    /// Devices that went back to their old certificate, verified, and still connect.
    pub rolled_back: usize,
    /// Old certificates that were revoked as superseded.
    pub retired: usize,
}

impl Outcome {
    /// Whether that is what should happen.
    pub fn expected(self, options: &Options) -> bool {
        self.rolled_back == FAULTS.len() && self.rotated == options.devices - FAULTS.len()
    }

    /// The closing line.
    fn line(self, options: &Options, took: Duration) -> String {
        let word = if self.expected(options) { "PASS" } else { "FAIL" };
        format!(
            "demo: {word} devices={} rotated={} rolled-back={} retired={} revoked=1 seconds={}",
            options.devices,
            self.rotated,
            self.rolled_back,
            self.retired,
            took.as_secs(),
        )
    }
}

/// Runs it, to the closing line, and with `KEEP` until Ctrl-C.
///
/// # Errors
/// When something is missing, or a step does not come to its end.
pub async fn run(options: &Options) -> Result<Outcome> {
    let (mut screen, start) = (Screen::default(), Instant::now());
    screen.say("1. set-up: Kubernetes API server, broker, controller");
    // What cannot be installed is better known before minutes of building than after.
    tools::openssl()?;
    tools::mosquitto()?;
    let mut stack = Stack::prepare("demo").await?;
    stack.check_crls()?;
    stack.apply_foundation(&FleetOptions {
        max_in_flight: 50,
        step_timeout: "10s",
        trial_timeout: "5s",
        job_timeout: "30s",
    })?;
    stack.start_controller().await?;
    stack.start_broker().await?;

    person::goes_to_the_namespace(&stack)?;

    screen.say(&format!("2. {} devices enrol with a claim", options.devices));
    let staging = Staging::of(options.devices);
    let report = stack.directory().join("devices.json");
    let simulation = Simulation {
        devices: options.devices,
        state: Some(stack.directory().join("devices")),
        report: Some(report.clone()),
        claim: stack.create_claim(options.devices)?,
        seed: 1,
        connect_rate: 300,
        faults: staging.faults.clone(),
    };
    stack.declare(staging.objects(stack.namespace())).await?;
    stack.start_devices(&simulation)?;
    let first = follow::enrolment(&mut stack, &mut screen, options.devices).await?;

    screen.say(&format!("3. new certificates, in waves: {}", staging.sizes()));
    stack
        .api
        .apply(&staging.rotation(stack.namespace(), ROTATION).to_string())?;
    let status = follow::rotation(&mut stack, &mut screen, &first, RotationPhase::RolledBack).await?;
    rollback::check(&stack, &mut screen, &staging, &report, &first, &status).await?;

    screen.say("4. a person has looked into it, and lets it go on without those that failed");
    person::resumes(&stack, &mut screen)?;
    follow::rotation(&mut stack, &mut screen, &first, RotationPhase::Complete).await?;

    screen.say("5. every active certificate, read by OpenSSL");
    let mut outcome = check::all(&mut stack, &mut screen, &simulation, &first).await?;

    screen.say("6. the old certificates are revoked, each once its device has come back by the new one");
    let stayed: Vec<_> = staging
        .faults
        .iter()
        .map(|(number, _)| Simulation::device_id(*number))
        .collect();
    outcome.retired = retire::all(&mut stack, &mut screen, &first, &stayed).await?;

    screen.say("7. a device is stolen, and a person revokes it");
    let stolen = first
        .keys()
        .find(|id| !stayed.contains(id))
        .context("nobody was rotated")?;
    stolen::device(&stack, &mut screen, &stack.directory().join("devices"), stolen).await?;
    screen.say(&outcome.line(options, start.elapsed()));
    if options.keep {
        keep::running(&mut screen, &stack, &staging).await?;
    }
    Ok(outcome)
}
