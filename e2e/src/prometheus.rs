//! Prometheus on loopback: what it scrapes, and what it answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{http, ports, tools};

const READY: Duration = Duration::from_mins(1);
const GRACE: Duration = Duration::from_secs(20);

/// A Prometheus that scrapes every second. It is killed on drop, and by the kernel when this process ends.
pub struct Prometheus {
    port: u16,
    process: Option<Process>,
    scratch: Scratch,
}

impl Prometheus {
    /// Starts one whose job `self` is up and whose job `absent` is down. See [`scraping`](Self::scraping).
    ///
    /// # Errors
    /// See there.
    pub async fn run() -> Result<Self> {
        let port = ports::free()?;
        let own = (Ipv4Addr::LOCALHOST, port).into();
        let absent = (Ipv4Addr::LOCALHOST, ports::free()?).into();
        Self::on(port, &[("self", own), ("absent", absent)]).await
    }

    /// Starts one with these jobs, one target each, and waits until it answers queries; it may not have scraped anything yet. It is
    /// installed when it is missing and root may.
    ///
    /// # Errors
    /// When there is none, with a line that says how to get it; or when it does not start, with its log.
    pub async fn scraping(jobs: &[(&str, SocketAddr)]) -> Result<Self> {
        Self::on(ports::free()?, jobs).await
    }

    async fn on(port: u16, jobs: &[(&str, SocketAddr)]) -> Result<Self> {
        let mut prometheus = Self {
            port,
            process: None,
            scratch: Scratch::new("prometheus")?,
        };
        let mut configuration = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
        for (job, target) in jobs {
            // As a ServiceMonitor of the chart has it: a series' own `namespace` counts.
            writeln!(
                configuration,
                "- {{job_name: {job}, honor_labels: true, static_configs: [{{targets: [\"{target}\"]}}]}}"
            )?;
        }
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

/// A series that a query answers: its labels, and its values by time, Unix seconds. Values that are no number are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// In order of time.
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// What an expression gives at a time, Unix seconds; where every value is no number the series has no point.
    ///
    /// # Errors
    /// When the expression is refused, with the reason, or is no vector.
    pub async fn query(&self, expression: &str, at: f64) -> Result<Vec<Series>> {
        let path = format!("/api/v1/query?time={at}&query={}", encoded(expression));
        self.ask(&path).await.with_context(|| expression.to_owned())
    }

    /// What an expression gives from one time to another, Unix seconds, each `step` seconds.
    ///
    /// # Errors
    /// When the expression is refused, with the reason.
    pub async fn query_range(&self, expression: &str, (from, to): (f64, f64), step: f64) -> Result<Vec<Series>> {
        let query = encoded(expression);
        let path = format!("/api/v1/query_range?start={from}&end={to}&step={step}&query={query}");
        self.ask(&path).await.with_context(|| expression.to_owned())
    }

    async fn ask(&self, path: &str) -> Result<Vec<Series>> {
        let (_, body) = http::get(self.address(), path).await?;
        let answer: Answer = serde_json::from_str(&body).with_context(|| body.clone())?;
        let Some(data) = answer.data else {
            bail!("Prometheus refuses it: {}", answer.error.unwrap_or(body));
        };
        let series = data.result.into_iter().map(|found| {
            let values = found.values.into_iter().chain(found.value);
            let points = values.filter_map(|(at, value)| Some((at, value.parse::<f64>().ok()?)));
            Series {
                labels: found.metric,
                points: points.filter(|(_, value)| value.is_finite()).collect(),
            }
        });
        Ok(series.collect())
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

/// As a value in a URL's query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
