//! `certwave crl-sync`: keeps the CRLs of the Mosquitto beside it.

use std::path::PathBuf;
use std::time::Duration;

use crate::companion::{self, CompanionError, Options};
use crate::door::mosquitto::wire::NodeName;

/// Fetch, verify and load the CRLs of the Mosquitto beside this.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// This node's name; every node of the broker has another one.
    #[arg(long, env = "CERTWAVE_NODE")]
    node: NodeName,
    /// The Broker's topicPrefix.
    #[arg(long, env = "CERTWAVE_TOPIC_PREFIX", default_value = certwave_protocol::topic::DEFAULT_PREFIX)]
    topic_prefix: String,
    /// The CAs that devices' certificates come from, PEM: roots and subordinates. Read again each time.
    #[arg(long, env = "CERTWAVE_CA_FILE")]
    ca_file: PathBuf,
    /// Base URL of the CRLs, as it stands in the certificates.
    #[arg(long, env = "CERTWAVE_BASE_URL")]
    base_url: String,
    /// Fetch them from this base URL instead; what they say of themselves must still be --base-url.
    #[arg(long, env = "CERTWAVE_FETCH_URL")]
    fetch_url: Option<String>,
    /// Mosquitto's crlfile: written here.
    #[arg(long, env = "CERTWAVE_CRL_FILE")]
    crl_file: PathBuf,
    /// The socket of Mosquitto's local listener (broker-config --local-socket).
    #[arg(long, env = "CERTWAVE_LOCAL_SOCKET", required_unless_present = "once")]
    socket: Option<PathBuf>,
    /// Seconds between two looks for new CRLs, where nobody says that there are any.
    #[arg(long, env = "CERTWAVE_POLL_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    poll_seconds: u64,
    /// The largest CRL that is fetched, bytes.
    #[arg(long, env = "CERTWAVE_MAX_BYTES", default_value_t = 256 * 1024 * 1024)]
    max_bytes: usize,
    /// Write the file once and end: before Mosquitto is started for the first time, as it does not start without.
    #[arg(long)]
    once: bool,
    /// Log as JSON or as text.
    #[arg(long, env = "CERTWAVE_LOG_FORMAT", default_value = "json", value_parser = ["json", "text"])]
    pub log_format: String,
}

/// Runs the command.
///
/// # Errors
/// When it cannot begin.
pub async fn run(arguments: Arguments) -> Result<(), CompanionError> {
    let options = Options {
        node: arguments.node,
        prefix: arguments.topic_prefix,
        ca_file: arguments.ca_file,
        base_url: arguments.base_url,
        fetch_url: arguments.fetch_url,
        crl_file: arguments.crl_file,
        socket: arguments.socket.unwrap_or_default(),
        poll: Duration::from_secs(arguments.poll_seconds),
        max_bytes: arguments.max_bytes,
    };
    if arguments.once {
        companion::once(options).await
    } else {
        companion::run(options).await
    }
}
