//! Mosquitto with mutual TLS on loopback: one process for devices and one for claims, as the listeners of one share client ids.

mod companion;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use certwave_crds::Broker;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

use crate::identity::Identity;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::wait_for;
use crate::{ports, programs, tools};

pub use companion::Companion;

const READY: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(10);
/// The two processes.
const DEVICES: &str = "devices";
const CLAIMS: &str = "claims";

/// The files that a broker's configuration names.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificates of the authorities that clients must chain to, PEM.
    pub ca: PathBuf,
    /// The server's certificate and intermediates, PEM.
    pub certificate: PathBuf,
    /// The server's private key, PEM.
    pub key: PathBuf,
    /// Where the access rules go.
    pub acl: PathBuf,
    /// The CRLs that a companion writes, where one runs.
    pub crl: PathBuf,
    /// Where the companion reaches the devices' process.
    pub socket: PathBuf,
}

/// A running broker: both processes, always treated alike. They are killed on drop, and by the kernel when this process ends.
pub struct Mosquitto {
    program: PathBuf,
    device_port: u16,
    claim_port: u16,
    files: Files,
    processes: Vec<Process>,
    /// Its name, where a companion runs beside it.
    node: Option<String>,
    scratch: Scratch,
}

/// Whom a broker lets in, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Devices and the controller.
    Devices,
    /// Claims.
    Claims,
}

impl Mosquitto {
    /// A broker that does not run yet, with two free ports and the files' places; Mosquitto is installed when it is
    /// missing and root may.
    ///
    /// # Errors
    /// When there is no Mosquitto, with a line that says how to get it.
    pub fn prepare() -> Result<Self> {
        let scratch = Scratch::new("mosquitto")?;
        let at = |name: &str| scratch.path().join(name);
        // Of their own, so that a test may put a small disk there.
        std::fs::create_dir(at("crls"))?;
        let files = Files {
            ca: at("ca.crt"),
            certificate: at("tls.crt"),
            key: at("tls.key"),
            acl: at("acl"),
            crl: at("crls/crl.pem"),
            socket: at("local.sock"),
        };
        Ok(Self {
            program: tools::mosquitto()?,
            device_port: ports::free()?,
            claim_port: ports::free()?,
            files,
            processes: Vec::new(),
            node: None,
            scratch,
        })
    }

    /// A broker that runs, where there is no cluster and so no Broker object: [`Mosquitto::prepare`],
    /// [`Mosquitto::set_certificates`], [`Mosquitto::configure`], [`Mosquitto::start`].
    ///
    /// # Errors
    /// See there.
    pub async fn run(client_ca: &str, server: &Identity) -> Result<Self> {
        let mut broker = Self::prepare()?;
        broker.set_certificates(client_ca, &server.certificate, &server.key)?;
        broker.configure(&broker.object()?)?;
        broker.start().await?;
        Ok(broker)
    }

    /// From the next [`Mosquitto::configure`] on devices are checked against CRLs, which a [`Companion`] has to write before the
    /// start.
    pub fn check_crls(&mut self, node: &str) {
        self.node = Some(node.to_owned());
    }

    /// The files that the configuration has to name.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Where devices and the controller connect.
    pub fn device_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.device_port).into()
    }

    /// Where claims connect.
    pub fn claim_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.claim_port).into()
    }

    /// Writes the trusted CAs, the server's chain and its key, all PEM. A running broker sees them after
    /// [`Mosquitto::reload`] or a restart.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn set_certificates(&self, client_ca: &str, certificate: &str, key: &str) -> Result<()> {
        self.scratch.write("ca.crt", client_ca)?;
        self.scratch.write("tls.crt", certificate)?;
        self.scratch.write("tls.key", key)?;
        Ok(())
    }

    /// Has `certwave broker-config` write what the next start reads, for a Broker object whose URLs name the two ports.
    ///
    /// # Errors
    /// When the object cannot be served, or a file cannot be written.
    pub fn configure(&self, broker: &Broker) -> Result<()> {
        let object = self.scratch.write("broker.json", serde_json::to_vec(broker)?)?;
        let mut command = Command::new(programs::certwave()?);
        command.args(["broker-config", "--bind", "127.0.0.1"]);
        command.arg("--broker-file").arg(object);
        command.arg("--ca-file").arg(&self.files.ca);
        command.arg("--cert-file").arg(&self.files.certificate);
        command.arg("--key-file").arg(&self.files.key);
        command.arg("--acl-file").arg(&self.files.acl);
        if let Some(node) = &self.node {
            command.args(["--node", node]);
            command.arg("--crl-file").arg(&self.files.crl);
            command.arg("--local-socket").arg(&self.files.socket);
            command
                .arg("--local-acl-file")
                .arg(self.scratch.path().join("acl.local"));
        }
        let (devices, claims) = (self.config(DEVICES), self.config(CLAIMS));
        command.arg("--out").arg(&devices).arg("--claims-out").arg(&claims);
        tools::output(&mut command)?;
        // Started by root, Mosquitto would become a user who cannot read these files; and a process that changes its
        // user is no longer killed with its parent.
        if rustix::process::geteuid().is_root() {
            for path in [devices, claims] {
                let config = std::fs::read_to_string(&path)?;
                std::fs::write(path, format!("user root\n{config}"))?;
            }
        }
        Ok(())
    }

    /// Lets anybody in who comes to this port, to hear and say anything whatever behind this door, as whoever runs the broker can. Holds from
    /// the next start of what was configured.
    ///
    /// # Errors
    /// When it was not configured, or there is no free port.
    pub fn let_in_anybody(&self, door: Door) -> Result<SocketAddr> {
        let port = ports::free()?;
        let path = self.config(match door {
            Door::Devices => DEVICES,
            Door::Claims => CLAIMS,
        });
        let config = std::fs::read_to_string(&path)?;
        let [certificate, key] = [&self.files.certificate, &self.files.key].map(|path| path.display());
        let listener =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n");
        std::fs::write(path, format!("{config}\n{listener}"))?;
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn config(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.conf"))
    }

    /// Starts it and waits until both ports answer.
    ///
    /// # Errors
    /// When it ends at once or does not listen; with its log.
    pub async fn start(&mut self) -> Result<()> {
        let mut processes = Vec::new();
        for (name, address) in [(DEVICES, self.device_address()), (CLAIMS, self.claim_address())] {
            let mut command = Command::new(&self.program);
            command.arg("-c").arg(self.config(name));
            let log = self.scratch.path().join(format!("{name}.log"));
            let mut process = Process::spawn("mosquitto", &command, &log)?;
            let listening = wait_for("Mosquitto to listen", READY, || {
                let ended = process.exited();
                async move {
                    if ended?.is_none() {
                        TcpStream::connect(address).await?;
                    }
                    Ok(())
                }
            });
            listening.await.with_context(|| self.log_tail())?;
            process.check_running()?;
            processes.push(process);
        }
        self.processes = processes;
        Ok(())
    }

    /// Ends it as a shutdown would (SIGTERM). A broker that does not run stays so.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        for mut process in self.processes.drain(..) {
            process.stop(GRACE)?;
        }
        Ok(())
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        self.processes.clear();
    }

    /// Stops and starts it, on the same ports.
    ///
    /// # Errors
    /// See [`Mosquitto::stop`] and [`Mosquitto::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start().await
    }

    /// Lets it read its files again (SIGHUP): ACL and certificates, not the listeners.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reload(&self) -> Result<()> {
        self.each(|process| process.signal(Signal::HUP))
    }

    /// Stops it in its tracks: connections stay open, nobody answers, until [`Mosquitto::resume`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.each(Process::pause)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.each(Process::resume)
    }

    /// How often a client of this name has connected to the devices' listener.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn connections_of(&self, client: &str) -> Result<usize> {
        let log = std::fs::read_to_string(self.scratch.path().join(format!("{DEVICES}.log")))?;
        let named = format!(" as {client} ");
        let connects = |line: &&str| line.contains("New client connected") && line.contains(&named);
        Ok(log.lines().filter(connects).count())
    }

    /// The end of its logs.
    pub fn log_tail(&self) -> String {
        let tail = |name: &str| {
            let log = std::fs::read_to_string(self.scratch.path().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        format!("{}\n{}", tail(DEVICES), tail(CLAIMS))
    }

    /// What a person would declare for this broker.
    ///
    /// # Errors
    /// When the CRD has other fields by now.
    pub fn object(&self) -> Result<Broker> {
        let ca = json!({ "issuerRef": { "name": "root" } });
        Ok(serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1",
            "kind": "Broker",
            "metadata": { "name": "mqtt" },
            "spec": {
                "id": "mqtt",
                "url": format!("mqtts://{}", self.device_address()),
                "claimsUrl": format!("mqtts://{}", self.claim_address()),
                "trust": ca,
                "issuerRef": ca["issuerRef"],
            },
        }))?)
    }

    fn each(&self, act: impl Fn(&Process) -> Result<()>) -> Result<()> {
        ensure!(!self.processes.is_empty(), "Mosquitto does not run");
        self.processes.iter().try_for_each(act)
    }
}
