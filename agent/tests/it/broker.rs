//! A Mosquitto of one's own, with mutual TLS and the design's access rules, and the CA behind it.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateSigningRequestDer;

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
    pub(crate) key: KeyPair,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn leaf(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Leaf {
        self.issue(named(name), usage)
    }

    /// A client's certificate that ended long ago.
    pub(crate) fn expired(&self, name: &str) -> Leaf {
        let mut params = named(name);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Leaf {
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            key,
        }
    }

    pub(crate) fn control(&self, name: &str) -> Leaf {
        self.leaf(name, ExtendedKeyUsagePurpose::Other(vec![2, 25, 1_129_791_830, 1]))
    }

    /// A device's certificate, as the controller would issue it.
    pub(crate) fn sign(&self, csr: &[u8], name: &str) -> Vec<u8> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).unwrap();
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.custom_extensions = Vec::<CustomExtension>::new();
        request.params = params;
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

pub(crate) struct Broker {
    child: Child,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) device_port: u16,
    pub(crate) claim_port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn mosquitto() -> Option<PathBuf> {
    [
        "/usr/sbin/mosquitto",
        "/usr/local/sbin/mosquitto",
        "/opt/homebrew/sbin/mosquitto",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|p| p.exists())
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(content.as_bytes())
        .unwrap();
    path.to_str().unwrap().to_owned()
}

impl Broker {
    /// `None` where there is no Mosquitto on this machine.
    pub(crate) fn start(ca: &Ca) -> Option<Self> {
        let program = mosquitto()?;
        let dir = tempfile::tempdir().unwrap();
        let server = ca.leaf("broker", ExtendedKeyUsagePurpose::ServerAuth);
        let (root, cert, key) = (
            write(dir.path(), "ca.pem", &ca.pem),
            write(dir.path(), "server.pem", &server.pem),
            write(dir.path(), "server.key", &server.key.serialize_pem()),
        );
        let acl = "user ~controller\ntopic read certwave/+/up/#\ntopic write certwave/+/down/#\n\
                   pattern write certwave/%u/up/#\npattern read certwave/%u/down/#\n";
        let acl = write(dir.path(), "acl", acl);
        let (device_port, claim_port) = (free_port(), free_port());
        let listener = |port: u16, own_name: bool| {
            format!(
                "listener {port} 127.0.0.1\ncafile {root}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n\
                 use_identity_as_username true\n{}",
                if own_name {
                    "use_username_as_clientid true\n"
                } else {
                    ""
                }
            )
        };
        let config = format!(
            "per_listener_settings false\nallow_anonymous true\nacl_file {acl}\nuser root\n{}{}",
            listener(device_port, true),
            listener(claim_port, false)
        );
        let config = write(dir.path(), "mosquitto.conf", &config);
        let child = Command::new(program)
            .args(["-c", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", claim_port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto did not start");
            std::thread::yield_now();
        }
        Some(Self {
            child,
            dir,
            device_port,
            claim_port,
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
