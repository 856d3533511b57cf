//! `certwave claim`: what an installer or a production line enrols devices with.
//!
//! The key is made here and stays here: the Fleet gets a request, the controller answers with a certificate in the
//! Fleet's status, and the bundle that this command writes is the only place that holds both.

mod edit;
mod output;

use std::path::PathBuf;
use std::time::Duration;

use certwave_crds::{Broker, BrokerTrust, CertificateAuthority, Claim, ClaimState, Fleet};
use certwave_pki::{KeyAlgorithm, PrivateKey, certificates_from_pem, certificates_to_pem, create_leaf_csr, csr_to_pem};
use certwave_protocol::ids::{ClaimName, Fingerprint};
use clap::Subcommand;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::{CommandError, client};
use edit::change;
use output::Output;

/// The controller answers within a second or two; it may have to start first.
const ANSWER: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Make, list, suspend and resume claims.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Fleet's namespace.
    #[arg(long, short, global = true, default_value = "default")]
    namespace: String,
    /// Kubeconfig.
    #[arg(long, env = "KUBECONFIG", global = true)]
    kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a claim: for one device (--device) or for a production run (--quota).
    Create(Create),
    /// List a Fleet's claims.
    List {
        /// The Fleet.
        #[arg(long)]
        fleet: String,
    },
    /// Stop enrolment by a claim, and nothing else.
    Suspend {
        /// The claim.
        name: ClaimName,
        /// The Fleet.
        #[arg(long)]
        fleet: String,
    },
    /// Let a suspended claim enrol again.
    Resume {
        /// The claim.
        name: ClaimName,
        /// The Fleet.
        #[arg(long)]
        fleet: String,
    },
}

#[derive(clap::Args)]
struct Create {
    /// The claim's name, unique below its broker.
    name: ClaimName,
    /// The Fleet.
    #[arg(long)]
    fleet: String,
    /// The only device that may use it (its deviceId).
    #[arg(long, required_unless_present = "quota", conflicts_with = "quota")]
    device: Option<String>,
    /// How many different declared devices may use it.
    #[arg(long)]
    quota: Option<i32>,
    /// How long it works: 5m for an installer beside the device, weeks for a production run.
    #[arg(long, default_value = "5m")]
    valid_for: certwave_crds::Duration,
    /// Where the bundle is written (mode 0600; never over another file); `-` prints it.
    #[arg(long)]
    out: PathBuf,
}

/// What a device needs to enrol.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    version: u32,
    broker_id: &'a str,
    url: &'a str,
    claims_url: &'a str,
    topic_prefix: &'a str,
    claim: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    certificate: &'a str,
    private_key: &'a str,
    trust_anchors: &'a str,
}

/// Carries one of the actions out.
///
/// # Errors
/// When the Fleet is not found or not ready, the claim's name is taken, or the bundle cannot be written.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let client = client(arguments.kubeconfig.as_ref()).await?;
    let namespace = arguments.namespace.as_str();
    let fleets: Api<Fleet> = Api::namespaced(client.clone(), namespace);
    match arguments.action {
        Action::Create(create) => make(client, &fleets, namespace, &create).await,
        Action::List { fleet } => list(&fleets, &fleet).await,
        Action::Suspend { name, fleet } => set_suspended(&client, namespace, &fleet, &name, true).await,
        Action::Resume { name, fleet } => set_suspended(&client, namespace, &fleet, &name, false).await,
    }
}

async fn make(client: Client, fleets: &Api<Fleet>, namespace: &str, create: &Create) -> Result<(), CommandError> {
    let fleet = fleets.get(&create.fleet).await?;
    let wanted = fleet.spec.broker_ref.namespace.as_deref().unwrap_or(namespace);
    let broker: Broker = Api::namespaced(client.clone(), wanted)
        .get(&fleet.spec.broker_ref.name)
        .await?;
    let Some(claims_url) = broker.spec.claims_url.as_deref() else {
        return Err(CommandError::Refused(
            "the Broker has no claimsUrl: claims have no listener to connect to".to_owned(),
        ));
    };
    let anchors = trust_anchors(&client, namespace, &fleet, wanted, &broker).await?;

    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|e| CommandError::Refused(e.to_string()))?;
    let csr = create_leaf_csr(&key, &create.name.user()).map_err(|e| CommandError::Refused(e.to_string()))?;
    let now = jiff::Timestamp::now();
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(create.valid_for.as_secs()))
        .map_err(|e| CommandError::Refused(format!("--valid-for: {e}")))?;
    let claim = Claim {
        name: create.name.to_string(),
        device_id: create.device.clone(),
        quota: create.quota,
        not_after: Time(end),
        suspended: false,
        csr: csr_to_pem(&csr),
    };
    // Before the Fleet changes: a claim whose key cannot be handed out is good for nothing.
    let output = Output::reserve(&create.out)?;
    change(&client, namespace, &create.fleet, |claims| {
        edit::add(claims, &claim, now)
    })
    .await?;
    let certificate = issued(fleets, &create.fleet, &create.name).await?;
    let key = key.to_pkcs8_pem();
    let bundle = Bundle {
        version: 1,
        broker_id: &broker.spec.id,
        url: &broker.spec.url,
        claims_url,
        topic_prefix: &broker.spec.topic_prefix,
        claim: create.name.as_str(),
        device_id: create.device.as_deref(),
        certificate: &certificate,
        private_key: key.expose_secret(),
        trust_anchors: &anchors,
    };
    let text = serde_json::to_string_pretty(&bundle).map_err(|e| CommandError::Refused(e.to_string()))?;
    output.write(&text)?;
    let whom = match (&create.device, create.quota) {
        (Some(device), _) => format!("device {device}"),
        (None, quota) => format!("{} declared devices", quota.unwrap_or_default()),
    };
    eprintln!(
        "claim {} for {whom}, until {end}. The bundle holds its only key: it is not shown again.",
        create.name
    );
    Ok(())
}

/// Waits for the claim's certificate; a claim that is refused says why.
async fn issued(fleets: &Api<Fleet>, fleet: &str, name: &ClaimName) -> Result<String, CommandError> {
    let began = tokio::time::Instant::now();
    loop {
        let status = fleets.get(fleet).await?.status.unwrap_or_default();
        let claim = status.claims.into_iter().find(|c| c.name == name.as_str());
        let why = match claim {
            Some(c) if c.state == ClaimState::Rejected => {
                return Err(CommandError::Refused(format!(
                    "the claim was rejected: {}",
                    c.message.unwrap_or_default()
                )));
            }
            Some(c) => match c.certificate {
                Some(certificate) => return Ok(certificate),
                None => c.message,
            },
            None => None,
        };
        if began.elapsed() > ANSWER {
            let why = why.unwrap_or_else(|| "the controller has not answered; is it running?".to_owned());
            return Err(CommandError::Refused(format!("no certificate for the claim: {why}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn list(fleets: &Api<Fleet>, name: &str) -> Result<(), CommandError> {
    let fleet = fleets.get(name).await?;
    let status = fleet.status.unwrap_or_default();
    println!("{:<24} {:<10} {:<24} {:>6} UNTIL", "NAME", "STATE", "FOR", "USED");
    for claim in &fleet.spec.enrolment.claims {
        let known = status.claims.iter().find(|c| c.name == claim.name);
        let state = known.map_or_else(|| "Pending".to_owned(), |c| format!("{:?}", c.state));
        let whom = match (&claim.device_id, claim.quota) {
            (Some(device), _) => device.clone(),
            (None, quota) => format!("{} devices", quota.unwrap_or_default()),
        };
        let used = known.map_or(0, |c| c.used);
        println!(
            "{:<24} {state:<10} {whom:<24} {used:>6} {}",
            claim.name, claim.not_after.0
        );
    }
    Ok(())
}

async fn set_suspended(
    client: &Client,
    namespace: &str,
    fleet: &str,
    name: &ClaimName,
    suspended: bool,
) -> Result<(), CommandError> {
    change(client, namespace, fleet, |claims| {
        edit::suspend(claims, name, suspended)
    })
    .await?;
    println!("claim {name} {}", if suspended { "suspended" } else { "resumed" });
    Ok(())
}

/// The anchors of the Fleet's CA and of its Broker: what the Fleet's devices should trust from the start.
async fn trust_anchors(
    client: &Client,
    namespace: &str,
    fleet: &Fleet,
    broker_namespace: &str,
    broker: &Broker,
) -> Result<String, CommandError> {
    let mut anchors = vec![anchor_of(client, namespace, &fleet.spec.issuer_ref.name).await?];
    if let Some(issuer) = &broker.spec.issuer_ref {
        anchors.push(anchor_of(client, broker_namespace, &issuer.name).await?);
    }
    anchors.extend(broker_anchors(client, broker_namespace, &broker.spec.trust).await?);
    anchors.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    anchors.dedup();
    let wanted = fleet.status.as_ref().and_then(|s| s.trust_bundle.clone());
    if wanted.is_some_and(|w| w != Fingerprint::of_bundle(&anchors).to_string()) {
        eprintln!("note: the Fleet's trust bundle has more anchors by now; devices get them by a trust job");
    }
    Ok(certificates_to_pem(&anchors))
}

async fn anchor_of(client: &Client, namespace: &str, name: &str) -> Result<CertificateDer<'static>, CommandError> {
    let authority: CertificateAuthority = Api::namespaced(client.clone(), namespace).get(name).await?;
    let status = authority.status.unwrap_or_default();
    let pem = status.chain.or(status.certificate).unwrap_or_default();
    let mut chain = readable(&pem, name)?;
    chain
        .pop()
        .ok_or_else(|| CommandError::Refused(format!("CertificateAuthority {name} is not ready")))
}

async fn broker_anchors(
    client: &Client,
    namespace: &str,
    trust: &BrokerTrust,
) -> Result<Vec<CertificateDer<'static>>, CommandError> {
    if let Some(issuer) = &trust.issuer_ref {
        return Ok(vec![anchor_of(client, namespace, &issuer.name).await?]);
    }
    if let Some(pem) = &trust.ca_bundle {
        return readable(pem, "spec.trust.caBundle");
    }
    let Some(reference) = &trust.secret_ref else {
        return Ok(Vec::new());
    };
    let secret: Secret = Api::namespaced(client.clone(), namespace).get(&reference.name).await?;
    let key = reference.key.as_deref().unwrap_or("ca.crt");
    let data = secret
        .data
        .and_then(|mut d| d.remove(key))
        .map(|b| b.0)
        .unwrap_or_default();
    readable(&String::from_utf8_lossy(&data), &reference.name)
}

fn readable(pem: &str, place: &str) -> Result<Vec<CertificateDer<'static>>, CommandError> {
    if pem.is_empty() {
        return Ok(Vec::new());
    }
    certificates_from_pem(pem).ok_or_else(|| CommandError::Refused(format!("{place} holds no readable certificate")))
}
