//! Mosquitto's configuration and ACL for a Broker object.
//!
//! A device may speak only for itself: its certificate's common name is its user name, the user name is its client id
//! on the devices' listener, and the ACL gives it `<prefix>/<user>/up/#` to write and `.../down/#` to read. Claims have a
//! listener of their own, where many connections share one user and so choose their client ids. As all listeners of one
//! Mosquitto share the client ids, and whoever takes one ends the connection that had it, the claims' listener belongs to a
//! Mosquitto of its own: there honest client ids are random, so nobody can take them, and no device's is among them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use certwave_crds::BrokerSpec;

use crate::door::mosquitto::wire::{DownType, NodeName, UpType, everybody};

/// Where Mosquitto finds what the Broker object does not say.
#[derive(Debug, Clone)]
pub struct MosquittoOptions {
    /// Address to listen on.
    pub bind: IpAddr,
    /// CAs that clients must chain to, PEM.
    pub ca_file: PathBuf,
    /// The server's certificate and intermediates, PEM.
    pub cert_file: PathBuf,
    /// The server's key, PEM.
    pub key_file: PathBuf,
    /// Where the ACL will lie.
    pub acl_file: PathBuf,
    /// What `certwave crl-sync` needs, where it runs beside.
    pub crl_sync: Option<CrlSyncOptions>,
}

/// What `certwave crl-sync` needs of the Mosquitto beside it.
#[derive(Debug, Clone)]
pub struct CrlSyncOptions {
    /// The node's name.
    pub node: NodeName,
    /// The file that it writes.
    pub crl_file: PathBuf,
    /// The Unix socket on which it reaches Mosquitto; who may is the directory's to say.
    pub socket: PathBuf,
    /// Where the ACL of that listener will lie.
    pub acl_file: PathBuf,
}

/// What the files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MosquittoFiles {
    /// `mosquitto.conf` of the devices' broker.
    pub config: String,
    /// `mosquitto.conf` of the claims' broker, where there is one.
    pub claims: Option<String>,
    /// The ACL file that both name.
    pub acl: String,
    /// The ACL file of the local listener, where there is one.
    pub local_acl: Option<String>,
}

/// The configuration for Mosquitto 2.0 and later.
///
/// # Errors
/// When a URL has no port, or the Broker has no `claimsUrl` on a port of its own.
pub fn mosquitto(broker: &BrokerSpec, options: &MosquittoOptions) -> Result<MosquittoFiles, String> {
    let devices = port(&broker.url)?;
    let claims = broker.claims_url.as_deref().map(port).transpose()?;
    if claims == Some(devices) {
        return Err("spec.claimsUrl needs another port than spec.url: claims have a broker of their own".to_owned());
    }
    let mut config = config(devices, options, "use_username_as_clientid true\n");
    if let Some(sync) = &options.crl_sync {
        config.push_str(&local(sync));
    }
    let claims = claims.map(|port| self::config(port, options, ""));
    let prefix = &broker.topic_prefix;
    let acl = format!(
        "# Generated from the Broker object: change that, not this.\n\
         user ~controller\n\
         topic read {prefix}/+/up/#\n\
         topic write {prefix}/+/down/#\n\
         \n\
         # Everybody else speaks for themselves alone: %u is the certificate's common name.\n\
         pattern write {prefix}/%u/up/#\n\
         pattern read {prefix}/%u/down/#\n",
    );
    let local_acl = options.crl_sync.as_ref().map(|sync| local_acl(prefix, &sync.node));
    Ok(MosquittoFiles {
        config,
        claims,
        acl,
        local_acl,
    })
}

/// CRLs on the devices' listener, and a listener for the companion: on a Unix socket, without TLS and names. There it may take
/// over any client id, which ends the session that had it.
fn local(sync: &CrlSyncOptions) -> String {
    format!(
        "crlfile {crl}\n\n# For certwave crl-sync alone: whoever opens this socket can end every session.\n\
         listener 0 {socket}\nallow_anonymous true\nacl_file {acl}\n",
        crl = sync.crl_file.display(),
        socket = sync.socket.display(),
        acl = sync.acl_file.display(),
    )
}

fn local_acl(prefix: &str, node: &NodeName) -> String {
    let (hint, kick) = (node.down(prefix, DownType::Crl), node.down(prefix, DownType::Kick));
    let (loaded, kicked) = (node.up(prefix, UpType::Loaded), node.up(prefix, UpType::Kicked));
    let all = everybody(prefix);
    format!(
        "# Generated from the Broker object: change that, not this.\n\
         topic read {all}\ntopic read {hint}\ntopic read {kick}\ntopic write {loaded}\ntopic write {kicked}\n"
    )
}

fn config(port: u16, options: &MosquittoOptions, client_ids: &str) -> String {
    let mut config = String::from(
        "# Generated from the Broker object: change that, not this.\n\
         per_listener_settings true\n\
         persistence false\n\
         # One client, the controller, reads what all others say.\n\
         max_inflight_messages 1000\n\
         max_queued_messages 100000\n\
         message_size_limit 32768\n\
         max_packet_size 34816\n",
    );
    let _ = write!(
        config,
        "\nlistener {port} {bind}\nallow_anonymous false\nacl_file {acl}\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\ntls_version tlsv1.2\n\
         require_certificate true\nuse_identity_as_username true\n{client_ids}",
        acl = options.acl_file.display(),
        bind = options.bind,
        ca = options.ca_file.display(),
        cert = options.cert_file.display(),
        key = options.key_file.display(),
    );
    config
}

fn port(url: &str) -> Result<u16, String> {
    let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| format!("{url} has no port"))
}
