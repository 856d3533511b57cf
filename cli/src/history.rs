//! The controller's ledger, as far as it is read from outside: one device's history, over a port that kubectl forwards to one of the
//! controller's pods.

use std::error::Error as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::session::Session;
use crate::{Error, Result};

/// Where each of the controller's pods serves histories, on its loopback.
const PORT: u16 = 8081;
/// How long kubectl has to forward a port.
const FORWARDED: Duration = Duration::from_secs(20);
/// The pods of a controller, as the chart labels them.
const PODS: &str = "app.kubernetes.io/name=certwave";

/// Which namespace the controller runs in.
#[derive(clap::Args, Debug, Clone)]
pub struct ControllerNamespace {
    /// Namespace of the controller.
    #[arg(
        id = "controller-namespace",
        long = "controller-namespace",
        value_name = "NAMESPACE",
        env = "CERTWAVE_CONTROLLER_NAMESPACE",
        default_value = "certwave-system"
    )]
    pub name: String,
}

/// Where the controller is.
#[derive(clap::Args, Debug, Clone)]
pub struct ControllerArguments {
    /// Its namespace.
    #[command(flatten)]
    pub namespace: ControllerNamespace,
    /// Address at which the controller serves histories (its --history), where it is reached without forwarding a port: 127.0.0.1:8081.
    #[arg(long, value_name = "ADDRESS", env = "CERTWAVE_HISTORY_ADDRESS")]
    pub history_address: Option<String>,
}

/// A device's history.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct History {
    /// There are older lines.
    pub more: bool,
    /// The last first.
    pub lines: Vec<Line>,
}

/// One line of the ledger's audit.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Line {
    /// Unix milliseconds.
    pub at: i64,
    /// Who: `controller`, `device`, a claim or a person.
    pub who: String,
    /// What happened, in a word.
    pub what: String,
    /// In which job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Reads what the ledger has of a device, the latest `limit` lines.
///
/// # Errors
/// [`Error::Forbidden`] for whoever may not forward a port to the controller's pods; [`Error::Unreachable`] when no pod answers.
pub async fn read(
    session: &Session,
    controller: &ControllerArguments,
    broker: &str,
    device: &str,
    limit: u32,
) -> Result<History> {
    // Both are of a closed set of characters, none of which means anything in a path.
    let path = format!("/history/{broker}/{device}?limit={limit}");
    let text = match &controller.history_address {
        Some(address) => {
            let stream = TcpStream::connect(address.trim_start_matches("http://")).await;
            ask(
                stream.map_err(|error| Error::Unreachable(format!("{address}: {error}")))?,
                &path,
            )
            .await?
        }
        None => forwarded(session, &controller.namespace.name, &path).await?,
    };
    serde_json::from_str(&text).map_err(|error| Error::Api(format!("the controller's answer: {error}")))
}

async fn forwarded(session: &Session, namespace: &str, path: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(session.client(), namespace);
    let running = pods
        .list(&ListParams::default().labels(PODS).fields("status.phase=Running"))
        .await?;
    let mut last = Error::Unreachable(format!(
        "no pod of the controller runs in namespace {namespace}; --controller-namespace says where to look"
    ));
    // Any replica can read the ledger; one may be about to go.
    for pod in running.items.iter().filter(|pod| serves(pod)) {
        match through(session, namespace, &pod.name_any(), path).await {
            Ok(text) => return Ok(text),
            Err(error @ Error::Forbidden(_)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Responders and companions bear the same name, and know no histories.
fn serves(pod: &Pod) -> bool {
    let component = pod.labels().get("app.kubernetes.io/component");
    component.is_none_or(|component| component == "controller")
}

/// Has kubectl, whose plugin this is, forward a port: it speaks whatever its API server speaks.
async fn through(session: &Session, namespace: &str, pod: &str, path: &str) -> Result<String> {
    let mut command = Command::new("kubectl");
    command.args(session.connection().for_kubectl());
    command.args(["port-forward", "--namespace", namespace, "--address", "127.0.0.1"]);
    command.arg(format!("pod/{pod}")).arg(format!(":{PORT}"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let gone = |why: &dyn std::fmt::Display| Error::Unreachable(format!("kubectl port-forward to pod {pod}: {why}"));
    let mut kubectl = command.spawn().map_err(|error| gone(&error))?;
    let (out, err) = (kubectl.stdout.take(), kubectl.stderr.take());
    // Read from until the answer is there: kubectl ends when it cannot say that it handles a connection.
    let mut out = BufReader::new(out.ok_or_else(|| gone(&"no output"))?);
    let port = tokio::time::timeout(FORWARDED, port(&mut out)).await;
    let Some(port) = port.map_err(|_| gone(&"not in time"))? else {
        let mut said = String::new();
        if let Some(mut err) = err {
            // What it said stands in the error; that it cannot be read changes nothing.
            let _ = err.read_to_string(&mut said).await;
        }
        let said = said.trim();
        return Err(if said.contains("Forbidden") || said.contains("forbidden") {
            Error::Forbidden(said.to_owned())
        } else {
            gone(&said)
        });
    };
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let answer = ask(stream.map_err(|error| gone(&error))?, path).await;
    drop(out);
    // Ended by its own id; that it has ended already is as good.
    let _ = kubectl.kill().await;
    answer
}

/// The port of this machine, from what kubectl says; `None` where it ends without.
async fn port(out: &mut (impl AsyncBufRead + Unpin)) -> Option<u16> {
    let mut lines = out.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(port) = forwarded_port(&line) {
            return Some(port);
        }
    }
    None
}

/// `Forwarding from 127.0.0.1:41234 -> 8081`.
fn forwarded_port(line: &str) -> Option<u16> {
    let from = line.strip_prefix("Forwarding from 127.0.0.1:")?;
    from.split_whitespace().next()?.parse().ok()
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, path: &str) -> Result<String> {
    let gone = |error: hyper::Error| {
        let why = error.source().map(|why| format!(": {why}")).unwrap_or_default();
        Error::Unreachable(format!("the controller does not answer: {error}{why}"))
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(gone)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(http::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Error::Usage(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(gone)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(gone)?.to_bytes();
    connection.abort();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        Ok(text)
    } else {
        Err(Error::Unreachable(format!(
            "the controller answers {status}: {}",
            text.trim()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_this_machine() {
        assert_eq!(forwarded_port("Forwarding from 127.0.0.1:41234 -> 8081"), Some(41234));
        assert_eq!(forwarded_port("Forwarding from [::1]:41234 -> 8081"), None);
        assert_eq!(forwarded_port("Handling connection for 41234"), None);
    }
}
