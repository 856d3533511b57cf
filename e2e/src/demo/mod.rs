//! The demonstration, step by step.

mod check;
mod keep;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use certwave_crds::{DeviceState, RotationPhase};

use crate::screen::Screen;
use crate::stack::{Fault, FleetOptions, Simulation, Stack};
use crate::tally::{Certificates, Tally, certificates};
use crate::tools;

/// The faults that the demo plays, one device each.
const FAULTS: [(Fault, &str); 3] = [
    (Fault::Rejects, "refused the job"),
    (Fault::IsRefused, "was not let in with the new one"),
    (Fault::ReachesNobody, "reached nobody with the new one"),
];
const LOOK_EVERY: Duration = Duration::from_millis(250);
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

    /// The devices (from 1) that fail, spread over the fleet.
    fn faults(self) -> Vec<(usize, Fault)> {
        let place = |index: usize| 1 + index * self.devices / FAULTS.len();
        FAULTS
            .iter()
            .enumerate()
            .map(|(index, (fault, _))| (place(index), *fault))
            .collect()
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Devices with a new certificate, verified.
    pub rotated: usize,
    /// Devices that went back to their old certificate, verified, and still connect.
    pub rolled_back: usize,
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
            "demo: {word} devices={} rotated={} rolled-back={} seconds={}",
            options.devices,
            self.rotated,
            self.rolled_back,
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
    stack.apply_foundation(&FleetOptions {
        max_in_flight: 50,
        step_timeout: "10s",
        trial_timeout: "5s",
        job_timeout: "30s",
    })?;
    stack.start_controller().await?;
    stack.start_broker().await?;

    screen.say(&format!("2. {} devices enrol with a claim", options.devices));
    let simulation = Simulation {
        devices: options.devices,
        state: Some(stack.directory().join("devices")),
        claim: stack.create_claim(options.devices)?,
        seed: 1,
        connect_rate: 300,
        faults: options.faults(),
    };
    stack.declare_devices(simulation.device_ids()).await?;
    stack.start_devices(&simulation)?;
    let first = enrol(&mut stack, &mut screen, options.devices).await?;

    screen.say(&format!("3. new certificates for all of them; {} fail", FAULTS.len()));
    stack.rotate(ROTATION)?;
    rotate(&mut stack, &mut screen, &first).await?;

    screen.say("4. every active certificate, read by OpenSSL");
    let outcome = check::all(&mut stack, &mut screen, &simulation, &first).await?;
    screen.say(&outcome.line(options, start.elapsed()));
    if options.keep {
        keep::running(&mut screen, &stack).await?;
    }
    Ok(outcome)
}

async fn enrol(stack: &mut Stack, screen: &mut Screen, devices: usize) -> Result<Certificates> {
    let (start, none) = (Instant::now(), Certificates::new());
    loop {
        stack.check_running()?;
        let objects = stack.devices().await?;
        let tally = Tally::of(&objects, &none);
        screen.show(&tally, "enrolled");
        let active = tally.count(DeviceState::Active);
        if active == devices {
            return Ok(certificates(&objects));
        }
        if start.elapsed() > patience(devices) {
            bail!(
                "only {active} of {devices} devices enrolled; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn rotate(stack: &mut Stack, screen: &mut Screen, first: &Certificates) -> Result<()> {
    let start = Instant::now();
    loop {
        stack.check_running()?;
        let tally = Tally::of(&stack.devices().await?, first);
        screen.show(&tally, "rotated");
        let phase = stack.rotation(ROTATION).await?.status.and_then(|status| status.phase);
        // Three devices fail, so a good run ends as Failed, when the last of them is back.
        if matches!(phase, Some(RotationPhase::Complete | RotationPhase::Failed)) {
            return Ok(());
        }
        if start.elapsed() > patience(first.len()) {
            bail!(
                "the rotation did not end; its phase is {phase:?}; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long a phase may take.
fn patience(devices: usize) -> Duration {
    Duration::from_mins(2) + Duration::from_millis(100) * u32::try_from(devices).unwrap_or(u32::MAX)
}
