//! How fast OCSP answers are, beside a bare hyper server and `openssl ocsp` in the same run, and what a million certificates take.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certwave_ledger::{Ledger, SqliteLedger};
use certwave_pki::ocsp::{HashAlgorithm, IssuerId};
use certwave_pki::{
    CaProfile, CertificateAuthority, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, Serial,
    certificates_to_pem,
};
use certwave_protocol::ids::Epoch;
use rand::Rng as _;
use secrecy::ExposeSecret as _;

use super::wire::{Line, Load, load, post};
use super::{Report, number, preload, scaled, seconds};
use crate::process::Process;
use crate::scratch::Scratch;
use crate::tools::progress;
use crate::wait::wait_for;
use crate::{ports, programs, tools};

const CERTIFICATES: usize = 1_000_000;
/// Certificates that clients ask for again and again.
const ASKED: usize = 1_000;
/// Certificates that are asked for once, before the memory is looked at.
const ASKED_ONCE: usize = 200_000;
const READY: Duration = Duration::from_mins(1);
/// Shorter than any signed answer.
pub(super) const LEAST: usize = 200;
pub(super) const KEPT: Load = Load {
    connections: 64,
    anew: false,
    time: Duration::from_secs(8),
};
/// OpenSSL answers one client at a time, and closes.
pub(super) const CLOSED: Load = Load {
    connections: 4,
    anew: true,
    time: Duration::from_secs(5),
};

/// See the module. `ocsp.cached` and `ocsp.signed` are with a million certificates in the ledger.
pub(super) async fn measure(report: &mut Report) -> Result<()> {
    let scratch = Scratch::new("ocsp")?;
    let bench = Bench::new(scratch.path())?;
    let (count, start) = (scaled(CERTIFICATES), Instant::now());
    bench.fill(count).await?;
    progress(&format!(
        "{count} certificates recorded in {} s",
        start.elapsed().as_secs()
    ));

    let (responder, address) = bench.responder().await?;
    report.add("ocsp.rss.start", mebibytes(&responder)?, "MiB")?;
    let cached = bench.requests(ASKED.min(count), Nonce::Without)?;
    let size = first_answer(address, &cached).await?;
    // Now all of them are there.
    let once = Load {
        time: Duration::from_secs(1),
        ..KEPT
    };
    load(&responder, address, Arc::clone(&cached), LEAST, once).await?;

    let (fixed, fixed_address) = fixed(scratch.path(), size).await?;
    let hyper = load(&fixed, fixed_address, Arc::clone(&cached), LEAST, KEPT).await?;
    hyper.report("ocsp.hyper", report)?;
    drop(fixed);
    let measured = load(&responder, address, Arc::clone(&cached), LEAST, KEPT).await?;
    measured.report("ocsp.cached", report)?;
    report.add(
        "ocsp.cached.of_hyper",
        100.0 * measured.per_second / hyper.per_second,
        "%",
    )?;
    let fresh = bench.requests(ASKED.min(count), Nonce::With)?;
    let measured = load(&responder, address, fresh, LEAST, KEPT).await?;
    measured.report("ocsp.signed", report)?;
    report.add(
        "ocsp.signed.of_hyper",
        100.0 * measured.per_second / hyper.per_second,
        "%",
    )?;

    let once = bench.requests(scaled(ASKED_ONCE).min(count), Nonce::Without)?;
    let mut line = Line::open(address).await?;
    for request in once.iter() {
        let (status, body) = line.ask(request).await?;
        ensure!(status == 200 && body.len() >= LEAST, "{status}, {} bytes", body.len());
    }
    report.add("ocsp.rss", mebibytes(&responder)?, "MiB")?;
    drop(responder);

    let (openssl, address) = bench.openssl(ASKED.min(count))?;
    // Not by a connection alone: OpenSSL waits for ever for whoever hangs up without a word.
    first_answer(address, &cached).await?;
    let measured = load(&openssl, address, cached, LEAST, CLOSED).await?;
    measured.report("ocsp.openssl", report)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Nonce {
    With,
    Without,
}

/// A CA with its responder's key, in files.
pub(super) struct Bench<'a> {
    ca: CertificateAuthority,
    directory: &'a Path,
}

impl<'a> Bench<'a> {
    pub(super) fn new(directory: &'a Path) -> Result<Self> {
        let now = seconds();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("bench"), now)?;
        let own = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let leaf = LeafRequest {
            subject: &LeafSubject::common_name("~ocsp")?,
            public_key: own.public_key(),
            usage: LeafUsage::OcspSigner,
            validity: Duration::from_hours(24),
            backdate: Duration::from_mins(5),
        };
        let certificate = ca.issue(&leaf, now)?.der;
        let signer = directory.join("signers/bench");
        std::fs::create_dir_all(&signer)?;
        std::fs::write(signer.join("tls.crt"), certificates_to_pem([&certificate]))?;
        std::fs::write(signer.join("tls.key"), own.to_pkcs8_pem().expose_secret())?;
        std::fs::write(signer.join("ca.crt"), certificates_to_pem([ca.certificate_der()]))?;
        Ok(Self { ca, directory })
    }

    fn signer(&self, file: &str) -> std::path::PathBuf {
        self.directory.join("signers/bench").join(file)
    }

    pub(super) async fn fill(&self, count: usize) -> Result<()> {
        let ledger = SqliteLedger::open(self.directory.join("ledger.sqlite"))?;
        let epoch: Epoch = ledger.take_epoch("bench", seconds() * 1000).await?;
        let filled = preload::certificates(&ledger, epoch, &self.ca.key_id().to_string(), count).await;
        ledger.close().await;
        filled
    }

    /// Requests about the first certificates, one each, by SHA-1 as most clients ask.
    pub(super) fn requests(&self, count: usize, nonce: Nonce) -> Result<Arc<Vec<Vec<u8>>>> {
        let issuer = IssuerId::of(&self.ca);
        let request = |place| {
            let nonce = (nonce == Nonce::With).then(|| {
                let mut nonce = [0; 16];
                rand::rng().fill_bytes(&mut nonce);
                nonce
            });
            let der = request(&issuer, &preload::serial(place)?, nonce)?;
            Ok(post("/ocsp", "application/ocsp-request", &der))
        };
        Ok(Arc::new((0..count).map(request).collect::<Result<_>>()?))
    }

    /// `certwave responder`.
    pub(super) async fn responder(&self) -> Result<(Process, SocketAddr)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut command = Command::new(programs::certwave()?);
        command.args(["responder", "--http", &address.to_string(), "--ledger"]);
        command.arg(self.directory.join("ledger.sqlite"));
        command.arg("--signers").arg(self.directory.join("signers"));
        let mut process = Process::spawn("responder", &command, &self.directory.join("responder.log"))?;
        process.wait_ready(address, "/readyz", READY).await?;
        Ok((process, address))
    }

    /// `openssl ocsp` over an index of the first certificates.
    pub(super) fn openssl(&self, count: usize) -> Result<(Process, SocketAddr)> {
        let mut index = String::new();
        for place in 0..count {
            let serial = preload::serial(place)?.to_string().to_uppercase();
            writeln!(index, "V\t491231235959Z\t\t{serial}\tunknown\t/CN=meter-{place}")?;
        }
        let file = self.directory.join("index.txt");
        std::fs::write(&file, index)?;
        std::fs::write(self.directory.join("index.txt.attr"), "unique_subject = no\n")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut command = Command::new(tools::openssl()?);
        command.args(["ocsp", "-port", &address.port().to_string(), "-nmin", "60", "-index"]);
        command.arg(file).arg("-CA").arg(self.signer("ca.crt"));
        command.arg("-rsigner").arg(self.signer("tls.crt"));
        command.arg("-rkey").arg(self.signer("tls.key"));
        let process = Process::spawn("openssl", &command, &self.directory.join("openssl.log"))?;
        Ok((process, address))
    }
}

/// The bare server, with answers of this size.
pub(super) async fn fixed(directory: &Path, size: usize) -> Result<(Process, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
    let mut command = Command::new(std::env::current_exe()?);
    command.args([super::FIXED, &address.to_string(), &size.to_string()]);
    let process = Process::spawn("hyper", &command, &directory.join("hyper.log"))?;
    listening(address).await?;
    Ok((process, address))
}

async fn listening(address: SocketAddr) -> Result<()> {
    wait_for("the server to listen", READY, || async {
        Ok(tokio::net::TcpStream::connect(address).await.map(drop)?)
    })
    .await
}

/// The size of an answer, which says that the certificate is good.
pub(super) async fn first_answer(address: SocketAddr, requests: &[Vec<u8>]) -> Result<usize> {
    wait_for("a signed answer", READY, || async {
        let mut line = Line::open(address).await?;
        let (status, body) = line.ask(requests.first().context("nothing to ask")?).await?;
        ensure!(status == 200 && body.len() >= LEAST, "{status}, {} bytes", body.len());
        Ok(body.len())
    })
    .await
}

fn mebibytes(process: &Process) -> Result<f64> {
    Ok(number(process.resident_bytes()? / 1024) / 1024.0)
}

/// An OCSP request about one certificate (RFC 6960, 4.1.1), with or without a nonce.
pub(super) fn request(issuer: &IssuerId, serial: &Serial, nonce: Option<[u8; 16]>) -> Result<Vec<u8>> {
    let name = issuer.cert_id(HashAlgorithm::Sha1, serial);
    let mut body = sequence(&sequence(&name)?)?;
    if let Some(nonce) = nonce {
        // [2] { SEQUENCE OF { id-pkix-ocsp-nonce, OCTET STRING of an OCTET STRING } }
        let mut extension = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x02\x04\x12\x04\x10".to_vec();
        extension.extend(nonce);
        let extensions = sequence(&sequence(&extension)?)?;
        body.extend([0xa2, u8::try_from(extensions.len())?]);
        body.extend(extensions);
    }
    sequence(&sequence(&body)?)
}

/// A DER SEQUENCE of less than 256 bytes.
fn sequence(content: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(content.len())?;
    let head: &[u8] = if length < 0x80 {
        &[0x30, length]
    } else {
        &[0x30, 0x81, length]
    };
    Ok([head, content].concat())
}
