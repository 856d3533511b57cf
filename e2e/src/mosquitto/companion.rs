//! `certwave crl-sync` beside a broker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Mosquitto;
use crate::process::Process;
use crate::{programs, tools};

const GRACE: Duration = Duration::from_secs(10);

/// A companion. It is killed on drop.
pub struct Companion {
    process: Option<Process>,
    broker_files: super::Files,
    node: String,
    base_url: String,
    log: PathBuf,
}

impl Companion {
    /// One for a broker that checks CRLs ([`Mosquitto::check_crls`]), which finds them below `base_url`. Nothing runs yet.
    ///
    /// # Errors
    /// When the broker checks none.
    pub fn new(broker: &Mosquitto, base_url: &str) -> Result<Self> {
        let node = broker.node.clone().context("the broker checks no CRLs")?;
        Ok(Self {
            process: None,
            broker_files: broker.files.clone(),
            log: broker.scratch.path().join("crl-sync.log"),
            base_url: base_url.to_owned(),
            node,
        })
    }

    /// The file that it writes.
    pub fn file(&self) -> &Path {
        &self.broker_files.crl
    }

    /// Writes the first file, as has to be done before Mosquitto starts.
    ///
    /// # Errors
    /// When it cannot.
    pub fn once(&self) -> Result<()> {
        tools::output(self.command()?.arg("--once")).map(drop)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command()?;
        command.arg("--socket").arg(&self.broker_files.socket);
        self.process = Some(Process::spawn("crl-sync", &command, &self.log)?);
        Ok(())
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it as a shutdown would (SIGTERM).
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(GRACE).map(drop),
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(programs::certwave()?);
        command.args(["crl-sync", "--log-format", "text", "--poll-seconds", "1"]);
        command.args(["--node", &self.node, "--base-url", &self.base_url]);
        command.arg("--ca-file").arg(&self.broker_files.ca);
        command.arg("--crl-file").arg(&self.broker_files.crl);
        Ok(command)
    }
}
