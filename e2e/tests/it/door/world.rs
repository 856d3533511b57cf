//! A CA that publishes, a Mosquitto that checks, a companion, and somebody in the controller's place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_controller::clock::now;
use certwave_controller::companion::{Index, IndexEntry};
use certwave_controller::door::mosquitto::wire::{
    DownType, Hint, Kick, Kicked, Loaded, NodeName, UpType, everybody, parse_up,
};
use certwave_e2e::identity::Identity;
use certwave_e2e::mosquitto::{Companion, Mosquitto};
use certwave_e2e::mqtt::Connection;
use certwave_pki::crl::{CrlEncoder, CrlHead, CrlKind, Listed, Mark, Reason};
use certwave_pki::{
    CaProfile, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey,
    Publication, certificates_to_pem, create_leaf_csr,
};
use certwave_protocol::ids::Nonce;
use secrecy::ExposeSecret;

pub(super) const NODE: &str = "node-1";
const SOON: Duration = Duration::from_secs(20);

/// What goes wrong on the way of CRLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Half of the body, and then the line is cut.
    Cut,
    /// Half of the body, as if that were all.
    Short,
    /// These CRLs are not to be had.
    Gone,
}

#[derive(Default)]
struct Served {
    crls: BTreeMap<String, (u64, Vec<u8>)>,
    trouble: Option<Trouble>,
    asked: u64,
}

/// What is served over HTTP.
#[derive(Clone, Default)]
pub(super) struct Publisher(Arc<Mutex<Served>>);

impl Publisher {
    pub(super) fn publish(&self, partition: &str, number: u64, der: Vec<u8>) {
        self.0.lock().unwrap().crls.insert(partition.to_owned(), (number, der));
    }

    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut served = self.0.lock().unwrap();
        served.trouble = trouble;
        served.asked = 0;
    }

    /// How many CRLs were asked for since the trouble was set.
    pub(super) fn asked(&self) -> u64 {
        self.0.lock().unwrap().asked
    }
}

async fn serve(State(publisher): State<Publisher>, Path((_, file)): Path<(String, String)>) -> Response {
    let mut served = publisher.0.lock().unwrap();
    if file == "index.json" {
        let entry = |(partition, (number, _)): (&String, &(u64, Vec<u8>))| IndexEntry {
            partition: partition.clone(),
            number: *number,
        };
        let crls = served.crls.iter().map(entry).collect();
        return serde_json::to_vec(&Index { crls }).unwrap().into_response();
    }
    served.asked += 1;
    let Some((_, der)) = file.strip_suffix(".crl").and_then(|name| served.crls.get(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let half = Bytes::copy_from_slice(&der[..der.len() / 2]);
    match served.trouble {
        None => der.clone().into_response(),
        Some(Trouble::Gone) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Trouble::Short) => half.into_response(),
        Some(Trouble::Cut) => {
            let broken = std::io::Error::other("cut");
            Body::from_stream(futures::stream::iter([Ok(half), Err(broken)])).into_response()
        }
    }
}

/// A leaf of the world's CA.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) serial: String,
    pub(super) partition: String,
}

pub(super) struct World {
    pub(super) ca: CertificateAuthority,
    pub(super) publisher: Publisher,
    pub(super) broker: Mosquitto,
    pub(super) companion: Companion,
    /// The controller's place.
    pub(super) controller: Connection,
    revoked: BTreeSet<String>,
    number: u64,
    partition: String,
    /// `thisUpdate` of the last CRL, Unix seconds.
    made: i64,
    base_url: String,
    admin: Leaf,
    /// What the broker's server certificate chains to, PEM.
    pub(super) server_ca: String,
}

pub(super) fn new_ca(base_url: &str) -> CertificateAuthority {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let ca = CertificateAuthority::self_signed(key, &CaProfile::named("door"), now() / 1000).unwrap();
    ca.with_publication(Publication::new(base_url).unwrap())
}

pub(super) fn leaf(ca: &CertificateAuthority, name: &str, usage: LeafUsage) -> Leaf {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = create_leaf_csr(&key, name).unwrap();
    let csr = Csr::parse(&request, &CsrPolicy::default()).unwrap();
    let request = LeafRequest {
        subject: &LeafSubject::common_name(name).unwrap(),
        public_key: csr.public_key(),
        usage,
        validity: Duration::from_hours(24),
        backdate: Duration::from_hours(1),
    };
    let issued = ca.issue(&request, now() / 1000).unwrap();
    Leaf {
        name: name.to_owned(),
        identity: Identity {
            certificate: certificates_to_pem([&issued.der]),
            key: key.to_pkcs8_pem().expose_secret().to_owned(),
        },
        serial: issued.serial,
        partition: issued.partition,
    }
}

/// A CRL of `entries` made at `at`, Unix seconds.
pub(super) fn crl(
    ca: &CertificateAuthority,
    url: &str,
    number: u64,
    at: i64,
    valid_for: i64,
    entries: &BTreeSet<String>,
) -> Vec<u8> {
    let head = CrlHead {
        scope_url: Some(url),
        number,
        this_update: at,
        next_update: at + valid_for,
        kind: CrlKind::Complete { freshest: None },
    };
    let mut encoder = CrlEncoder::new(ca, &head, entries.len()).unwrap();
    for serial in entries {
        let entry = Listed {
            serial: serial.parse().unwrap(),
            at: at - 1,
            mark: Mark::Revoked(Reason::KeyCompromise),
            invalid_since: None,
        };
        encoder.push(&entry).unwrap();
    }
    encoder.sign().unwrap()
}

impl World {
    pub(super) async fn new() -> Self {
        let publisher = Publisher::default();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/crl/{issuer}/{file}", get(serve))
            .with_state(publisher.clone());
        // In a thread of its own: tests wait for programs that ask it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await
            })
        });

        let ca = new_ca(&base_url);
        let trust = certificates_to_pem([ca.certificate_der()]);
        let authority = certwave_e2e::identity::Authority::new("server").unwrap();
        let server_ca = authority.certificate();
        let server = authority.server("broker").unwrap();
        let mut broker = Mosquitto::prepare().unwrap();
        broker.check_crls(NODE);
        broker
            .set_certificates(&trust, &server.certificate, &server.key)
            .unwrap();
        broker.configure(&broker.object().unwrap()).unwrap();
        let companion = Companion::new(&broker, &base_url).unwrap();
        let admin = leaf(&ca, "~controller", LeafUsage::Controller);
        let partition = admin.partition.clone();
        let made = now() / 1000 - 1800;
        let first = crl(&ca, &Self::url(&ca, &partition), 1, made, 36_000, &BTreeSet::new());
        publisher.publish(&partition, 1, first);
        companion.once().unwrap();
        broker.start().await.unwrap();
        let mut controller = Self::open(&broker, &server_ca, &admin).await.unwrap();
        assert!(controller.subscribe("certwave/+/up/+").await.unwrap());
        let mut world = Self {
            ca,
            publisher,
            broker,
            companion,
            controller,
            revoked: BTreeSet::new(),
            number: 1,
            partition,
            made,
            base_url,
            admin,
            server_ca,
        };
        world.companion.start().unwrap();
        world.loaded(1).await;
        world
    }

    fn url(ca: &CertificateAuthority, partition: &str) -> String {
        ca.publication().unwrap().crl_url(ca.key_id(), partition)
    }

    async fn open(broker: &Mosquitto, server_ca: &str, leaf: &Leaf) -> anyhow::Result<Connection> {
        Connection::open(broker.device_address(), server_ca, Some(&leaf.identity), &leaf.name).await
    }

    pub(super) fn device(&self, name: &str) -> Leaf {
        leaf(&self.ca, name, LeafUsage::Device)
    }

    pub(super) async fn connect(&self, leaf: &Leaf) -> anyhow::Result<Connection> {
        Self::open(&self.broker, &self.server_ca, leaf).await
    }

    /// The controller's place again, after the broker has gone.
    pub(super) async fn reconnect(&mut self) {
        self.controller = Self::open(&self.broker, &self.server_ca, &self.admin).await.unwrap();
        assert!(self.controller.subscribe("certwave/+/up/+").await.unwrap());
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) fn partition(&self) -> &str {
        &self.partition
    }

    pub(super) fn scope_url(&self) -> String {
        Self::url(&self.ca, &self.partition)
    }

    /// The number of the CRL published last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// `thisUpdate` of the CRL published last.
    pub(super) fn made(&self) -> i64 {
        self.made
    }

    /// Publishes the next CRL, with these serial numbers on it and all that were before; its number.
    pub(super) fn revoke(&mut self, serials: impl IntoIterator<Item = String>) -> u64 {
        self.revoked.extend(serials);
        self.publish()
    }

    /// Publishes the next CRL without a serial number that was on it.
    pub(super) fn release(&mut self, serial: &str) -> u64 {
        self.revoked.remove(serial);
        self.publish()
    }

    fn publish(&mut self) -> u64 {
        self.number += 1;
        self.made += 1;
        let der = crl(
            &self.ca,
            &self.scope_url(),
            self.number,
            self.made,
            36_000,
            &self.revoked,
        );
        self.publisher.publish(&self.partition, self.number, der);
        self.number
    }

    /// Says that there is something new, as the controller does.
    pub(super) async fn hint(&mut self) {
        let message = serde_json::to_vec(&Hint::default()).unwrap();
        self.controller
            .publish(&everybody("certwave"), &message, false)
            .await
            .unwrap();
    }

    /// The next report.
    pub(super) async fn report(&mut self) -> Loaded {
        loop {
            let message = self.controller.next(SOON).await.unwrap();
            let message = message.unwrap_or_else(|| panic!("no report; {}", self.companion.log_tail()));
            if let Some((node, UpType::Loaded)) = parse_up("certwave", &message.topic) {
                assert_eq!(node.as_str(), NODE);
                return serde_json::from_slice(&message.payload).unwrap();
            }
        }
    }

    /// Waits until this number is reported as loaded; what the report says beside.
    pub(super) async fn loaded(&mut self, number: u64) -> Loaded {
        let until = tokio::time::Instant::now() + SOON;
        let mut last = None;
        while tokio::time::Instant::now() < until {
            let report = self.report().await;
            if report
                .scopes
                .iter()
                .any(|s| s.partition == self.partition && s.number == number)
            {
                return report;
            }
            last = Some(report);
        }
        panic!("{number} is not loaded: {last:?}; {}", self.companion.log_tail());
    }

    /// Waits for a report of this fault.
    pub(super) async fn fault(&mut self, text: &str) -> Loaded {
        let until = tokio::time::Instant::now() + SOON;
        let mut last = None;
        while tokio::time::Instant::now() < until {
            let report = self.report().await;
            if report.error.as_ref().is_some_and(|error| error.contains(text)) {
                return report;
            }
            last = Some(report);
        }
        panic!("no fault {text}: {last:?}");
    }

    /// Orders sessions to be closed; the answer.
    pub(super) async fn kick(&mut self, devices: &[&Leaf]) -> Kicked {
        let node: NodeName = NODE.parse().unwrap();
        let order = Nonce(rand::random());
        let kick = Kick {
            order,
            devices: devices.iter().map(|leaf| leaf.name.parse().unwrap()).collect(),
        };
        let topic = node.down("certwave", DownType::Kick);
        let message = serde_json::to_vec(&kick).unwrap();
        self.controller.publish(&topic, &message, false).await.unwrap();
        loop {
            let message = self.controller.next(SOON).await.unwrap().unwrap();
            if let Some((_, UpType::Kicked)) = parse_up("certwave", &message.topic) {
                let kicked: Kicked = serde_json::from_slice(&message.payload).unwrap();
                if kicked.order == order {
                    return kicked;
                }
            }
        }
    }
}
