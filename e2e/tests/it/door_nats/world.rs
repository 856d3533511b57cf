//! A CA whose leaves name an OCSP responder, the responder, and a NATS server that asks it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwave_controller::door::Hidden;
use certwave_controller::door::nats::{Login, Nats as Adapter, Settings, Tls};
use certwave_e2e::identity::{Authority, Identity};
use certwave_e2e::mqtt::Connection;
use certwave_e2e::nats::{Nats, PASSWORD};
use certwave_e2e::ports;
use certwave_pki::crl::Reason;
use certwave_pki::ocsp::{CertStatus, OcspRequest, OcspSigner, StatusTimes};
use certwave_pki::{
    CaProfile, CertificateAuthority, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, Publication,
    certificates_to_pem,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

/// What the responder says of serial numbers that it was told of; of others that they are good.
#[derive(Default)]
pub(super) struct Responder {
    told: Mutex<HashMap<String, CertStatus>>,
    down: AtomicBool,
    asked: AtomicUsize,
    signer: Mutex<Option<OcspSigner>>,
}

pub(super) struct World {
    ca: CertificateAuthority,
    pub(super) nats: Nats,
    pub(super) responder: Arc<Responder>,
    pub(super) server_ca: String,
}

/// A device's certificate with its key.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) identity: Identity,
    serial: String,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().cast_signed()
}

async fn answer(
    State(responder): State<Arc<Responder>>,
    Path((_, request)): Path<(String, String)>,
) -> Result<Vec<u8>, StatusCode> {
    responder.asked.fetch_add(1, Ordering::Relaxed);
    if responder.down.load(Ordering::Relaxed) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let der = STANDARD.decode(request).map_err(|_| StatusCode::BAD_REQUEST)?;
    let request = OcspRequest::parse(&der).map_err(|_| StatusCode::BAD_REQUEST)?;
    let now = now();
    let times = StatusTimes {
        this_update: now - 5,
        // Long enough that a cached answer would still be good: only a server that asks anew lets nobody in.
        next_update: now + 3600,
        produced_at: now,
    };
    let (signer, told) = (responder.signer.lock().unwrap(), responder.told.lock().unwrap());
    let status = |serial: &certwave_pki::Serial| told.get(&serial.to_string()).copied().unwrap_or(CertStatus::Good);
    let answer = signer.as_ref().unwrap().answer(&request, times, status);
    Ok(answer.unwrap().der)
}

impl World {
    pub(super) async fn start() -> Self {
        let port = ports::free().unwrap();
        let publication = Publication::new(&format!("http://127.0.0.1:{port}"))
            .unwrap()
            .with_ocsp();
        let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CertificateAuthority::self_signed(key(), &CaProfile::named("Plant root"), now() - 60)
            .unwrap()
            .with_publication(publication);
        let signing = key();
        let subject = LeafSubject::common_name("~ocsp").unwrap();
        let issued = issue(&ca, &signing, &subject, LeafUsage::OcspSigner);
        let responder = Arc::new(Responder::default());
        *responder.signer.lock().unwrap() = Some(OcspSigner::new(signing, issued.der, ca.certificate_der()).unwrap());
        let app = Router::new()
            .route("/ocsp/{issuer}/{*request}", get(answer))
            .with_state(Arc::clone(&responder));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });

        let servers = Authority::new("servers").unwrap();
        let clients = certificates_to_pem([ca.certificate_der()]);
        let nats = Nats::run(&clients, &servers.server("nats").unwrap()).await.unwrap();
        Self {
            ca,
            nats,
            responder,
            server_ca: servers.certificate(),
        }
    }

    pub(super) fn device(&self, name: &str) -> Device {
        let usage = if name.starts_with('~') {
            LeafUsage::Controller
        } else {
            LeafUsage::Device
        };
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let issued = issue(&self.ca, &key, &LeafSubject::common_name(name).unwrap(), usage);
        Device {
            name: name.to_owned(),
            identity: Identity {
                certificate: certificates_to_pem([&issued.der]),
                key: key.to_pkcs8_pem().expose_secret().to_owned(),
            },
            serial: issued.serial.clone(),
        }
    }

    pub(super) async fn connect(&self, device: &Device) -> anyhow::Result<Connection> {
        self.connect_as(device, &device.name).await
    }

    pub(super) async fn connect_as(&self, device: &Device, client_id: &str) -> anyhow::Result<Connection> {
        let address = self.nats.mqtt_address();
        Connection::open(address, &self.server_ca, Some(&device.identity), client_id).await
    }

    /// The adapter as the controller makes it, with this login.
    pub(super) fn adapter(&self, login: Login) -> Adapter {
        self.adapter_of(login, 1)
    }

    pub(super) fn adapter_of(&self, login: Login, servers: usize) -> Adapter {
        let controller = self.device("~controller").identity;
        let settings = Settings {
            url: self.nats.url(),
            login,
            user: Some("CN={deviceId}".to_owned()),
            version: String::new(),
        };
        let tls = Tls {
            anchors: vec![CertificateDer::from_pem_slice(self.server_ca.as_bytes()).unwrap()],
            chain: vec![CertificateDer::from_pem_slice(controller.certificate.as_bytes()).unwrap()],
            key: PrivateKeyDer::from_pem_slice(controller.key.as_bytes()).unwrap(),
        };
        Adapter::new(settings, tls, servers)
    }
}

pub(super) fn login() -> Login {
    Login::Password {
        user: "certwave".to_owned(),
        password: Hidden::from(PASSWORD.to_owned()),
    }
}

impl Responder {
    pub(super) fn revoke(&self, device: &Device, reason: Reason) {
        let status = CertStatus::Revoked { at: now() - 1, reason };
        self.told.lock().unwrap().insert(device.serial.clone(), status);
    }

    pub(super) fn release(&self, device: &Device) {
        self.told.lock().unwrap().remove(&device.serial);
    }

    pub(super) fn forget(&self, device: &Device) {
        self.told
            .lock()
            .unwrap()
            .insert(device.serial.clone(), CertStatus::Unknown);
    }

    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn issue(ca: &CertificateAuthority, key: &PrivateKey, subject: &LeafSubject, usage: LeafUsage) -> certwave_pki::Issued {
    let request = LeafRequest {
        subject,
        public_key: key.public_key(),
        usage,
        validity: Duration::from_hours(24),
        backdate: Duration::from_mins(1),
    };
    ca.issue(&request, now()).unwrap()
}
