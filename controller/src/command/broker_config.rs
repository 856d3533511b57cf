//! `certwave broker-config`: a broker's configuration and access rules, from its `Broker` object.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use certwave_crds::{Adapter, Broker};
use kube::Api;
use serde::Deserialize as _;

use crate::door::mosquitto::wire::NodeName;

use super::{CommandError, CrlSyncOptions, MosquittoOptions, client, mosquitto};

/// Print a broker's configuration and write its ACL.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("object").required(true).args(["broker_file", "broker"]))]
pub struct Arguments {
    /// File with the Broker object, YAML or JSON; `-` reads the standard input.
    #[arg(long)]
    broker_file: Option<PathBuf>,
    /// Name of the Broker object in the cluster.
    #[arg(long)]
    broker: Option<String>,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Kubeconfig.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind: IpAddr,
    /// CAs that devices and the controller chain to, PEM.
    #[arg(long)]
    ca_file: PathBuf,
    /// The broker's certificate with its chain, PEM.
    #[arg(long)]
    cert_file: PathBuf,
    /// The broker's key, PEM.
    #[arg(long)]
    key_file: PathBuf,
    /// Where the ACL is written, and where the broker finds it.
    #[arg(long)]
    acl_file: PathBuf,
    /// The name of this node, where certwave crl-sync runs beside it; with --crl-file, --local-socket and --local-acl-file.
    #[arg(long, requires_all = ["crl_file", "local_socket", "local_acl_file"])]
    node: Option<NodeName>,
    /// The CRLs that certwave crl-sync writes. Mosquitto does not start without: run crl-sync --once before.
    #[arg(long, requires = "node")]
    crl_file: Option<PathBuf>,
    /// The Unix socket for certwave crl-sync, in a directory that nobody else may enter: whoever opens it can end every session.
    #[arg(long, requires = "node")]
    local_socket: Option<PathBuf>,
    /// Where the ACL of that listener is written, and where the broker finds it.
    #[arg(long, requires = "node")]
    local_acl_file: Option<PathBuf>,
    /// Where the configuration goes; printed where left out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the configuration of the claims' broker goes: needed where the Broker has a claimsUrl.
    #[arg(long)]
    claims_out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the Broker cannot be read or used, or a file cannot be written.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let broker = read(&arguments).await?;
    if broker.spec.adapter != Adapter::Mosquitto {
        let message = format!(
            "the Broker {} is no Mosquitto; only its configuration can be generated",
            broker.spec.id
        );
        return Err(CommandError::Refused(message));
    }
    let options = MosquittoOptions {
        bind: arguments.bind,
        ca_file: arguments.ca_file,
        cert_file: arguments.cert_file,
        key_file: arguments.key_file,
        acl_file: arguments.acl_file,
        crl_sync: match (
            arguments.node,
            arguments.crl_file,
            arguments.local_socket,
            arguments.local_acl_file,
        ) {
            (Some(node), Some(crl_file), Some(socket), Some(acl_file)) => Some(CrlSyncOptions {
                node,
                crl_file,
                socket,
                acl_file,
            }),
            _ => None,
        },
    };
    let files = mosquitto(&broker.spec, &options).map_err(CommandError::Refused)?;
    let claims = match (files.claims, &arguments.claims_out) {
        (None, _) => None,
        (Some(config), Some(path)) => Some((path, config)),
        (Some(_), None) => {
            let message = "the Broker has a claimsUrl: say with --claims-out where the configuration of the second Mosquitto \
                           goes. Claims choose their client ids, and all listeners of one Mosquitto share those";
            return Err(CommandError::Refused(message.to_owned()));
        }
    };
    std::fs::write(&options.acl_file, files.acl).map_err(CommandError::file(&options.acl_file))?;
    if let (Some(sync), Some(acl)) = (&options.crl_sync, files.local_acl) {
        std::fs::write(&sync.acl_file, acl).map_err(CommandError::file(&sync.acl_file))?;
    }
    if let Some((path, config)) = claims {
        std::fs::write(path, config).map_err(CommandError::file(path))?;
    }
    if let Some(path) = &arguments.out {
        return std::fs::write(path, files.config).map_err(CommandError::file(path));
    }
    print!("{}", files.config);
    Ok(())
}

async fn read(arguments: &Arguments) -> Result<Broker, CommandError> {
    match (&arguments.broker_file, &arguments.broker) {
        (Some(path), _) => {
            let text = if path.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(path)
            };
            parse(&text.map_err(CommandError::file(path))?)
        }
        (None, name) => {
            let client = client(arguments.kubeconfig.as_ref()).await?;
            let api: Api<Broker> = Api::namespaced(client, &arguments.namespace);
            Ok(api.get(name.as_deref().unwrap_or_default()).await?)
        }
    }
}

/// The first Broker of a YAML (or JSON) stream.
fn parse(text: &str) -> Result<Broker, CommandError> {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|e| CommandError::Refused(format!("no YAML: {e}")))?;
    let broker = documents.into_iter().find(|document| document["kind"] == "Broker");
    let broker = broker.ok_or_else(|| CommandError::Refused("no document of kind Broker".to_owned()))?;
    Broker::deserialize(broker).map_err(|e| CommandError::Refused(format!("not a Broker: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BROKER: &str = "
apiVersion: certwave.dev/v1alpha1
kind: Fleet
---
apiVersion: certwave.dev/v1alpha1
kind: Broker
metadata: {name: mqtt}
spec:
  id: mqtt
  url: mqtts://mqtt.example.com:8883
  claimsUrl: mqtts://mqtt.example.com:8884
  trust: {issuerRef: {name: root}}
  issuerRef: {name: root}
";

    fn options() -> MosquittoOptions {
        MosquittoOptions {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ca_file: "/etc/ca.crt".into(),
            cert_file: "/etc/tls.crt".into(),
            key_file: "/etc/tls.key".into(),
            acl_file: "/etc/acl".into(),
            crl_sync: None,
        }
    }

    #[test]
    fn devices_and_claims_get_a_mosquitto_each() {
        let files = mosquitto(&parse(BROKER).unwrap().spec, &options()).unwrap();
        assert_eq!(files.config, include_str!("snapshots/mosquitto.conf"));
        assert_eq!(
            files.claims.as_deref(),
            Some(include_str!("snapshots/mosquitto-claims.conf"))
        );
        assert_eq!(files.acl, include_str!("snapshots/mosquitto.acl"));
    }

    #[test]
    fn a_companion_gets_a_socket_with_its_own_topics_and_devices_are_checked_against_its_file() {
        let sync = CrlSyncOptions {
            node: "a".parse().unwrap(),
            crl_file: "/var/crl.pem".into(),
            socket: "/run/door/mosquitto.sock".into(),
            acl_file: "/etc/acl.local".into(),
        };
        let options = MosquittoOptions {
            crl_sync: Some(sync),
            ..options()
        };
        let files = mosquitto(&parse(BROKER).unwrap().spec, &options).unwrap();
        assert_eq!(files.config, include_str!("snapshots/mosquitto-crl-sync.conf"));
        assert_eq!(
            files.claims.as_deref(),
            Some(include_str!("snapshots/mosquitto-claims.conf"))
        );
        let acl = include_str!("snapshots/mosquitto-local.acl");
        assert_eq!(files.local_acl.as_deref(), Some(acl));
    }

    #[test]
    fn claims_and_devices_never_share_a_port() {
        let mut spec = parse(BROKER).unwrap().spec;
        spec.claims_url = Some(spec.url.clone());
        assert!(mosquitto(&spec, &options()).is_err());
    }

    #[test]
    fn what_is_no_broker_is_refused() {
        assert!(parse("kind: Fleet").is_err());
        assert!(parse("kind: Broker\nspec: {id: 3}").is_err());
    }
}
