//! A NATS server with the configuration of `docs/examples/nats`, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::identity::Identity;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::wait_for;
use crate::{ports, tools};

/// The password of the system account's user.
pub const PASSWORD: &str = "only-for-this-test-of-a-NATS-server";
/// A login that is good, but not for the system account.
const ANOTHER_ACCOUNT: &str = "OTHER { users: [ { user: monitor, password: $CERTWAVE_PASSWORD } ] }\n";
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/nats");
const READY: Duration = Duration::from_secs(10);

/// A running server; killed on drop.
pub struct Nats {
    client_port: u16,
    mqtt_port: u16,
    process: Process,
    _scratch: Scratch,
}

impl Nats {
    /// Starts a server that lets in the clients of `client_ca` (PEM) whose users stand in the example.
    ///
    /// # Errors
    /// When it cannot be built or does not start.
    pub async fn run(client_ca: &str, server: &Identity) -> Result<Self> {
        let program = tools::nats_server()?;
        let scratch = Scratch::new("nats")?;
        let example = |name: &str| std::fs::read_to_string(Path::new(EXAMPLES).join(name));
        scratch.write("nats-server.conf", example("nats-server.conf")?)?;
        scratch.write("devices.conf", example("devices.conf")? + ANOTHER_ACCOUNT)?;
        let (client_port, mqtt_port) = (ports::free()?, ports::free()?);
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(scratch.path().join("nats-server.conf"))
            .env("SERVER_NAME", "n1")
            .env("STORE_DIR", scratch.path().join("jetstream"))
            .env("CLIENT_LISTEN", format!("127.0.0.1:{client_port}"))
            .env("MQTT_LISTEN", format!("127.0.0.1:{mqtt_port}"))
            .env("CERT_FILE", scratch.write("tls.crt", &server.certificate)?)
            .env("KEY_FILE", scratch.write("tls.key", &server.key)?)
            .env("CA_FILE", scratch.write("ca.crt", client_ca)?)
            .env("CERTWAVE_PASSWORD", PASSWORD);
        let mut process = Process::spawn("nats-server", &command, &scratch.path().join("log"))?;
        let listening = wait_for("nats-server to listen", READY, || {
            let ended = process.exited();
            async move {
                if ended?.is_none() {
                    TcpStream::connect((Ipv4Addr::LOCALHOST, mqtt_port)).await?;
                }
                Ok(())
            }
        });
        listening.await.with_context(|| process.log_tail())?;
        process.check_running()?;
        Ok(Self {
            client_port,
            mqtt_port,
            process,
            _scratch: scratch,
        })
    }

    /// Where devices connect.
    pub fn mqtt_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.mqtt_port).into()
    }

    /// The URL of the client port.
    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.client_port)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}
