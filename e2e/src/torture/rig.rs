//! Everything that runs: API server behind a proxy, broker, controller, devices at several sites behind a line of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certwave_crds::{DeviceState, Fleet};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Options;
use super::history::{Limits, Patience, Step, steps};
use super::standing::{OnDevice, report};
use super::store::Store;
use crate::process::Process;
use crate::proxy::{Fault, Proxy, Wire};
use crate::stack::{FleetOptions, Stack, objects};
use crate::tally::{Certificates, certificates};
use crate::wait::wait_for;
use crate::{programs, tools};

/// Simulators, each of which loses power by itself.
pub(super) const SITES: usize = 3;
/// What is allowed while no Rotation runs: less than any Rotation allows, so that who goes by it then is seen.
pub(super) const FLEET_IN_FLIGHT: usize = 2;
const ENROLLED: Duration = Duration::from_mins(5);
/// How long whoever restarts the controller waits, as a kubelet does.
const RESTART_AFTER: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(10);
/// Seconds: a step, and as long as a device may take to accept; a trial; a job.
const STEP: u64 = 40;
const TRIAL: u64 = 40;
const JOB: u64 = 240;

/// A place with devices.
pub(super) struct Site {
    name: String,
    ids: Vec<String>,
    process: Option<Process>,
}

/// See the module. What it started ends with it, in this order.
pub(super) struct Rig {
    sites: Vec<Site>,
    pub(super) stack: Stack,
    pub(super) proxy: Proxy,
    /// Between the devices and the broker.
    pub(super) line: Wire,
    pub(super) store: Store,
    /// Refusals of the API server that last.
    pub(super) refusals: Vec<Fault>,
    clock: PathBuf,
    claim: PathBuf,
    /// Whether somebody keeps the controller from being started again.
    held_down: bool,
    ended_at: Option<Instant>,
    /// How often the controller was started again.
    pub(super) restarts: usize,
    seed: u64,
}

impl Rig {
    /// What the Fleet allows.
    pub(super) fn fleet_limits(devices: usize) -> Limits {
        Limits {
            in_flight: FLEET_IN_FLIGHT,
            // Two devices in three within a minute, so that it is in the way.
            per_minute: (devices * 3 / 2).max(10),
        }
    }

    /// How long the Fleet waits for a silent device.
    pub(super) const fn patience() -> Patience {
        Patience {
            answer: Duration::from_secs(STEP),
            trial: Duration::from_secs(STEP + TRIAL),
        }
    }

    /// Sets everything up, and has all devices enrol.
    pub(super) async fn prepare(options: &Options) -> Result<Self> {
        // What cannot be installed is better known before minutes of building than after.
        tools::openssl()?;
        tools::faketime()?;
        let mut stack = Stack::prepare("torture").await?;
        let store = Store::prepare(options.ledger, &mut stack)?;
        let proxy = stack.put_proxy().await?;
        let clock = stack.directory().join("clock");
        std::fs::write(&clock, "+0")?;
        stack.follow_clock(clock.clone());
        stack.check_crls()?;
        stack.apply_foundation(&FleetOptions {
            max_in_flight: i32::try_from(FLEET_IN_FLIGHT)?,
            step_timeout: "40s",
            trial_timeout: "40s",
            job_timeout: "4m",
        })?;
        limit(&stack, options.devices).await?;
        stack.start_controller().await?;
        stack.start_broker().await?;
        let line = Wire::to(stack.broker.device_address())?;
        let mut rig = Self {
            sites: Vec::new(),
            claim: stack.create_claim(options.devices)?,
            proxy,
            line,
            store,
            refusals: Vec::new(),
            clock,
            held_down: false,
            ended_at: None,
            restarts: 0,
            seed: options.seed,
            stack,
        };
        rig.enrol(options.devices).await?;
        Ok(rig)
    }

    async fn enrol(&mut self, devices: usize) -> Result<()> {
        let ids: Vec<String> = (1..=devices).map(|number| format!("meter-{number:04}")).collect();
        self.stack.declare_devices(ids.clone()).await?;
        for (number, ids) in ids.chunks(devices.div_ceil(SITES)).enumerate() {
            let name = format!("site-{number}");
            std::fs::write(self.file(&name, "ids"), ids.join("\n"))?;
            self.sites.push(Site {
                name,
                ids: ids.to_vec(),
                process: None,
            });
        }
        for site in 0..self.sites.len() {
            self.switch_on(site)?;
        }
        let enrolled = wait_for("the devices' first certificates", ENROLLED, || async {
            let shown = self.stack.devices().await?;
            let active = |state| state == Some(DeviceState::Active);
            let active = shown
                .iter()
                .filter(|d| active(d.status.as_ref().and_then(|s| s.state)))
                .count();
            ensure!(active == devices, "{active} of {devices}");
            Ok(())
        });
        enrolled.await
    }

    /// The ids of all devices.
    pub(super) fn ids(&self) -> Vec<String> {
        self.sites.iter().flat_map(|site| site.ids.iter().cloned()).collect()
    }

    /// Gives a site's devices power. They go on with their files and their history.
    pub(super) fn switch_on(&mut self, number: usize) -> Result<()> {
        let name = self.sites[number].name.clone();
        let mut command = Command::new(programs::agent()?);
        command.args(["simulate", "--backoff-max", "2", "--keep-alive", "10", "--beat", "4"]);
        command.args(["--seed", &self.seed.wrapping_add(number as u64).to_string()]);
        command.args(["--broker-url", &format!("mqtts://{}", self.line.address())]);
        // They take their time, so that faults find them at every step.
        command.args(["--connect-rate", "100", "--fault", "slow:1s=*"]);
        command.arg("--ids-from").arg(self.file(&name, "ids"));
        command.arg("--claim").arg(&self.claim);
        command.arg("--state-dir").arg(self.device_files());
        command.arg("--report").arg(self.file(&name, "json"));
        command.arg("--history").arg(self.file(&name, "history"));
        let process = Process::spawn(&name, &command, &self.file(&name, "log"))?;
        self.sites[number].process = Some(process);
        Ok(())
    }

    /// Takes a site's power away.
    pub(super) fn cut_power(&mut self, number: usize) {
        self.sites[number].process = None;
    }

    /// Kills the controller; it stays down until [`Rig::let_start`].
    pub(super) fn kill_controller(&mut self) -> Result<()> {
        self.held_down = true;
        self.stack.controller()?.kill();
        Ok(())
    }

    /// Ends the controller as a shutdown would; it stays down until [`Rig::let_start`].
    pub(super) fn stop_controller(&mut self) -> Result<()> {
        self.held_down = true;
        // While the API server hangs it may need longer, and is killed, as a pod would be.
        let _ = self.stack.controller()?.stop(GRACE);
        Ok(())
    }

    /// Does this to the controller, unless it has ended and is about to be started again.
    pub(super) fn controller_if_running(&mut self, act: impl FnOnce(&Process) -> Result<()>) -> Result<()> {
        let controller = self.stack.controller()?;
        match controller.exited()? {
            None => act(controller),
            Some(_) => Ok(()),
        }
    }

    /// The controller may run again.
    pub(super) fn let_start(&mut self) -> Result<()> {
        self.held_down = false;
        self.ended_at = None;
        self.start_again()
    }

    /// Has the clock of the controller, and of each that is started, jump to this distance from the right one.
    pub(super) fn set_clock(&self, off: &str) -> Result<()> {
        // Whole at every moment: an empty file would be an error to whoever reads it.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, off)?;
        Ok(std::fs::rename(new, &self.clock)?)
    }

    /// Starts the controller again where it has ended, after a moment, as a kubelet would.
    pub(super) fn keep_controller(&mut self) -> Result<()> {
        if self.held_down || self.stack.controller()?.exited()?.is_none() {
            self.ended_at = None;
            return Ok(());
        }
        let ended = *self.ended_at.get_or_insert_with(Instant::now);
        if ended.elapsed() >= RESTART_AFTER {
            self.ended_at = None;
            self.start_again()?;
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        self.restarts += 1;
        self.stack.spawn_controller()
    }

    /// An error when a site that has power has none.
    pub(super) fn check_sites(&mut self) -> Result<()> {
        let running = self.sites.iter_mut().filter_map(|site| site.process.as_mut());
        running.into_iter().try_for_each(Process::check_running)
    }

    /// Where devices keep their slots, each in a directory of its name.
    pub(super) fn device_files(&self) -> PathBuf {
        self.stack.directory().join("devices")
    }

    /// What devices say of themselves now.
    pub(super) fn devices(&self) -> Result<BTreeMap<String, OnDevice>> {
        let mut all = BTreeMap::new();
        for site in &self.sites {
            let file = self.file(&site.name, "json");
            let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            all.extend(report(&text)?);
        }
        Ok(all)
    }

    /// What devices have done so far.
    pub(super) fn steps(&self) -> Result<Vec<Step>> {
        let files: Vec<_> = self.sites.iter().map(|site| self.file(&site.name, "history")).collect();
        steps(files.iter().map(PathBuf::as_path))
    }

    /// The current certificates, as objects show them.
    pub(super) async fn certificates(&self) -> Result<Certificates> {
        Ok(certificates(&self.stack.devices().await?))
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.stack.directory().join(format!("{name}.{ending}"))
    }
}

/// What the stack's Fleet has of its own: a rate, patience, and that old certificates are revoked, which keeps CRLs moving.
async fn limit(stack: &Stack, devices: usize) -> Result<()> {
    let limits = Rig::fleet_limits(devices);
    let change = json!({ "spec": { "rotation": {
        "limits": { "maxInFlight": limits.in_flight, "maxPerMinute": limits.per_minute },
        "device": {
            "stepTimeout": format!("{STEP}s"), "trialTimeout": format!("{TRIAL}s"), "jobTimeout": format!("{JOB}s"),
            "offlineAfter": format!("{STEP}s"), "lostAfter": "5m",
            "retries": { "max": 10, "backoff": "1s" },
        },
        "oldCertificate": { "retire": "Revoke", "grace": "5s", "probation": "30s", "reconnectsPerSecond": 50 },
    } } });
    let fleets = stack.objects::<Fleet>();
    fleets
        .patch(objects::FLEET, &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    Ok(())
}
