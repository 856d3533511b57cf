//! Prometheus on loopback: it scrapes itself, and one target that is not there.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{ports, tools};

const READY: Duration = Duration::from_mins(1);
const GRACE: Duration = Duration::from_secs(20);

/// A Prometheus whose job `self` is up and whose job `absent` is down. It is killed on drop, and by the kernel when this process
/// ends.
pub struct Prometheus {
    port: u16,
    process: Option<Process>,
    scratch: Scratch,
}

impl Prometheus {
    /// Starts it, and waits until it answers queries; it may not have scraped anything yet. It is installed when it is missing
    /// and root may.
    ///
    /// # Errors
    /// When there is none, with a line that says how to get it; or when it does not start, with its log.
    pub async fn run() -> Result<Self> {
        let scratch = Scratch::new("prometheus")?;
        let mut prometheus = Self {
            port: ports::free()?,
            process: None,
            scratch,
        };
        let configuration = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - {{job_name: self, static_configs: [{{targets: [\"{}\"]}}]}}\n\
             - {{job_name: absent, static_configs: [{{targets: [\"127.0.0.1:{}\"]}}]}}\n",
            prometheus.address(),
            ports::free()?,
        );
        prometheus.scratch.write("prometheus.yml", configuration)?;
        prometheus.start().await?;
        Ok(prometheus)
    }

    /// Starts it again after [`Prometheus::stop`], on the same port and with what it had stored.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub async fn start(&mut self) -> Result<()> {
        let path = self.scratch.path();
        let mut command = Command::new(tools::prometheus()?);
        command
            .arg(format!("--config.file={}", path.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path.join("data").display()))
            .arg(format!("--web.listen-address={}", self.address()))
            .arg("--log.level=warn");
        let mut process = Process::spawn("prometheus", &command, &path.join("prometheus.log"))?;
        process.wait_ready(self.address(), "/-/ready", READY).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a shutdown would.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(GRACE).map(drop),
            None => Ok(()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}
