//! A rustls server that checks its clients' certificates against the CRLs of every CA of their chain.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certwave_e2e::identity::Authority;
use certwave_pki::crl::{CrlEncoder, CrlHead, CrlKind, Listed, Mark, Reason};
use certwave_pki::{
    CaProfile, CertificateAuthority, Issued, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, Publication,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().cast_signed()
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A root, a subordinate, and two devices of it.
struct Plant {
    root: CertificateAuthority,
    devices: CertificateAuthority,
    good: (Issued, PrivateKey),
    stolen: (Issued, PrivateKey),
}

impl Plant {
    fn new() -> Self {
        let publication = || Publication::new("http://pki.example.com").unwrap();
        let root = CertificateAuthority::self_signed(key(), &CaProfile::named("Plant root"), now() - 60)
            .unwrap()
            .with_publication(publication());
        let devices = root
            .subordinate(key(), &CaProfile::named("Plant devices"), now() - 60)
            .unwrap()
            .with_publication(publication());
        let device = |name: &str| {
            let (key, subject) = (key(), LeafSubject::common_name(name).unwrap());
            let request = LeafRequest {
                subject: &subject,
                public_key: key.public_key(),
                usage: LeafUsage::Device,
                validity: Duration::from_hours(24),
                backdate: Duration::from_mins(1),
            };
            (devices.issue(&request, now()).unwrap(), key)
        };
        let (good, stolen) = (device("pump-17"), device("pump-18"));
        Self {
            root,
            devices,
            good,
            stolen,
        }
    }

    fn crl(
        ca: &CertificateAuthority,
        partition: &str,
        number: u64,
        listed: &[Listed],
    ) -> CertificateRevocationListDer<'static> {
        let url = ca.publication().unwrap().crl_url(ca.key_id(), partition);
        let head = CrlHead {
            scope_url: Some(&url),
            number,
            this_update: now() - 30,
            next_update: now() + 3600,
            kind: CrlKind::Complete { freshest: None },
        };
        let mut encoder = CrlEncoder::new(ca, &head, listed.len()).unwrap();
        for entry in listed {
            encoder.push(entry).unwrap();
        }
        encoder.sign().unwrap().into()
    }

    /// The CRLs of both CAs; the stolen device's certificate is on the one of its partition, as `mark` says.
    fn crls(&self, mark: Option<Mark>) -> Vec<CertificateRevocationListDer<'static>> {
        let listed: Vec<Listed> = mark
            .map(|mark| Listed {
                serial: self.stolen.0.serial.parse().unwrap(),
                at: now() - 60,
                mark,
                invalid_since: None,
            })
            .into_iter()
            .collect();
        vec![
            Self::crl(&self.root, certwave_pki::CA_PARTITION, 1, &[]),
            Self::crl(&self.devices, &self.stolen.0.partition, 2, &listed),
        ]
    }

    /// Whether a server that goes by these CRLs lets the device in.
    async fn lets_in(&self, device: &(Issued, PrivateKey), crls: Vec<CertificateRevocationListDer<'static>>) -> bool {
        let servers = Authority::new("servers").unwrap();
        let identity = servers.server("gateway").unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.root.certificate_der().clone()).unwrap();
        // By default every certificate of the chain is checked, and one whose status no CRL tells is refused.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls(crls)
            .build()
            .unwrap();
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let mut anchors = RootCertStore::empty();
        anchors
            .add(CertificateDer::from_pem_slice(servers.certificate().as_bytes()).unwrap())
            .unwrap();
        let chain = vec![device.0.der.clone(), self.devices.certificate_der().clone()];
        let pkcs8 = PrivatePkcs8KeyDer::from(device.1.secret_pkcs8_der().to_vec());
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(anchors)
            .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(pkcs8))
            .unwrap();

        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
            stream.write_all(b"welcome").await?;
            stream.shutdown().await
        });
        let said = async {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await?;
            std::io::Result::Ok(said)
        };
        let said = said.await;
        let let_in = serving.await.unwrap();
        assert_eq!(said.is_ok(), let_in.is_ok(), "{said:?} {let_in:?}");
        said.is_ok_and(|said| said == b"welcome")
    }
}

#[tokio::test]
async fn a_rustls_server_refuses_the_revoked_device_and_no_other() {
    let plant = Plant::new();
    assert!(plant.lets_in(&plant.stolen, plant.crls(None)).await);
    for mark in [
        Mark::Revoked(Reason::KeyCompromise),
        Mark::Revoked(Reason::CertificateHold),
    ] {
        assert!(!plant.lets_in(&plant.stolen, plant.crls(Some(mark))).await, "{mark:?}");
        assert!(plant.lets_in(&plant.good, plant.crls(Some(mark))).await, "{mark:?}");
    }
}

#[tokio::test]
async fn a_rustls_server_lets_nobody_in_whose_ca_has_no_crl() {
    let plant = Plant::new();
    let only_roots = plant.crls(None).into_iter().take(1).collect();
    assert!(!plant.lets_in(&plant.good, only_roots).await);
}
