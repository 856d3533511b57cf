//! How long it takes to make a CRL of a million entries, and how much memory, beside rcgen and `openssl ca -gencrl`.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use certwave_pki::crl::{CrlEncoder, CrlHead, CrlKind, Listed, Mark, Reason};
use certwave_pki::{CaProfile, CertificateAuthority, KeyAlgorithm, PrivateKey, Serial};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{Report, number};
use crate::scratch::Scratch;
use crate::tools;

const ENTRIES: u32 = 1_000_000;
/// Another count, for a quick look.
const ENTRIES_FROM: &str = "CRL_ENTRIES";
/// The argument of the bench program that makes it one of the makers below and nothing else.
pub const MAKER: &str = "--crl-maker";

/// What one maker took.
pub(super) struct Taken {
    pub(super) seconds: f64,
    /// The most resident memory beyond what the process had before and what the CRL itself takes, bytes.
    above: u64,
    /// Of the CRL, DER, in bytes.
    length: u64,
}

impl Taken {
    /// The most resident memory beyond what the process had before and what the CRL itself takes.
    pub(super) fn mebibytes(&self) -> f64 {
        number(self.above / 1024) / 1024.0
    }

    /// This, if the list has so many entries: none is below 30 bytes.
    fn whole(self, entries: u32) -> Result<Self> {
        ensure!(self.length > u64::from(entries) * 30, "a list of {} bytes", self.length);
        Ok(self)
    }
}

/// `crl.build_1m`: a P-256 CA signs a list of entries with 16 bytes of serial number, date and reason. Each maker runs in a
/// process of its own, so that none finds memory that another left.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let entries = match std::env::var(ENTRIES_FROM) {
        Ok(text) => text.parse().with_context(|| format!("{ENTRIES_FROM}={text}"))?,
        Err(_) => ENTRIES,
    };
    let name = if entries == ENTRIES {
        "crl.build_1m".to_owned()
    } else {
        format!("crl.build_{entries}")
    };
    for (maker, taken) in [
        ("", made_by("certwave", entries)?),
        (".rcgen", made_by("rcgen", entries)?),
        (".openssl", openssl(entries)?),
    ] {
        report.add(format!("{name}{maker}"), taken.seconds, "s")?;
        report.add(format!("{name}{maker}.memory"), taken.mebibytes(), "MiB")?;
    }
    Ok(())
}

/// Runs this program as one of the makers.
pub(super) fn made_by(maker: &str, entries: u32) -> Result<Taken> {
    let mut command = Command::new(std::env::current_exe()?);
    made(command.args([MAKER, maker]), entries)
}

/// Runs a maker: a program that takes the number of entries and prints seconds, bytes of memory above the list, and its length.
pub(super) fn made(command: &mut Command, entries: u32) -> Result<Taken> {
    let text = tools::output(command.arg(entries.to_string()))?;
    let mut words = text.split_whitespace();
    let mut next = || words.next().context("a maker that says too little");
    let taken = Taken {
        seconds: next()?.parse()?,
        above: next()?.parse()?,
        length: next()?.parse()?,
    };
    taken.whole(entries).with_context(|| format!("{command:?}"))
}

/// What the bench program does as a maker: makes the list and prints seconds, bytes of memory above it, and its length.
///
/// # Errors
/// When the maker is unknown or fails.
pub fn make(arguments: &[String]) -> Result<()> {
    let [maker, entries] = arguments else {
        bail!("{MAKER} takes a maker and a number");
    };
    let entries = entries.parse()?;
    let taken = match maker.as_str() {
        "certwave" => certwave(entries)?,
        "rcgen" => rcgen(entries)?,
        other => bail!("{other}: no maker"),
    };
    println!("{} {} {}", taken.seconds, taken.above, taken.length);
    Ok(())
}

fn certwave(entries: u32) -> Result<Taken> {
    let now = now();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let ca = CertificateAuthority::self_signed(key, &CaProfile::named("bench"), now)?;
    let head = CrlHead {
        scope_url: None,
        number: 1,
        this_update: now,
        next_update: now + 86_400,
        kind: CrlKind::Complete { freshest: None },
    };
    watched(|| {
        let mut encoder = CrlEncoder::new(&ca, &head, usize::try_from(entries)?)?;
        for n in 0..entries {
            encoder.push(&Listed {
                serial: Serial::from_bytes(&serial(n))?,
                at: now - 60,
                mark: Mark::Revoked(Reason::KeyCompromise),
                invalid_since: None,
            })?;
        }
        Ok(encoder.sign()?)
    })
}

fn rcgen(entries: u32) -> Result<Taken> {
    let issuer = issuer()?;
    watched(|| {
        let at = date_time_ymd(2026, 1, 1);
        let revoked_certs = (0..entries)
            .map(|n| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial(n)),
                revocation_time: at,
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update: at,
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&issuer)?.der().to_vec())
    })
}

/// OpenSSL's own way: a text file with a line for each certificate. Its program is measured whole, start and PEM included.
pub(super) fn openssl(entries: u32) -> Result<Taken> {
    let scratch = Scratch::new("crl")?;
    let file = |name: &str| scratch.path().join(name);
    let issuer = issuer()?;
    fs::write(file("ca.pem"), issuer.pem())?;
    fs::write(file("ca.key"), issuer.key().serialize_pem())?;
    let mut index = std::io::BufWriter::new(fs::File::create(file("index.txt"))?);
    for n in 0..entries {
        let serial = hex::encode_upper(serial(n));
        writeln!(
            index,
            "R\t360101000000Z\t260101000000Z,keyCompromise\t{serial}\tunknown\t/CN=m{n}"
        )?;
    }
    index.flush()?;
    drop(index);
    fs::write(file("number"), "01")?;
    let config = format!(
        "[ca]\ndefault_ca=x\n[x]\ndatabase={}\ncrlnumber={}\ndefault_md=sha256\ndefault_crl_days=1\ncrl_extensions=e\n\
         [e]\nauthorityKeyIdentifier=keyid\n",
        file("index.txt").display(),
        file("number").display(),
    );
    fs::write(file("ca.cnf"), config)?;
    let mut command = Command::new(tools::openssl()?);
    command.args(["ca", "-gencrl", "-config"]).arg(file("ca.cnf"));
    command.arg("-keyfile").arg(file("ca.key"));
    command.arg("-cert").arg(file("ca.pem"));
    command.arg("-out").arg(file("list.pem"));
    let start = Instant::now();
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut peak = 0;
    let ended = loop {
        // What it last said before it ended.
        peak = peak.max(memory(&status, "VmHWM:").unwrap_or(0));
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = start.elapsed().as_secs_f64();
    ensure!(ended.success(), "openssl ca -gencrl: {ended}");
    // Of four characters of PEM, three bytes.
    let length = fs::metadata(file("list.pem"))?.len() / 65 * 48;
    let taken = Taken {
        seconds,
        above: peak.saturating_sub(length),
        length,
    };
    taken.whole(entries)
}

/// Runs a maker in this process.
fn watched(make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Taken> {
    let status = Path::new("/proc/self/status");
    // proc(5): 5 sets the peak back to what is resident now.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = memory(status, "VmRSS:")?;
    let start = Instant::now();
    let list = make()?;
    let seconds = start.elapsed().as_secs_f64();
    let length = u64::try_from(list.len())?;
    let above = memory(status, "VmHWM:")?.saturating_sub(before + length);
    Ok(Taken { seconds, above, length })
}

/// A line of /proc/<pid>/status, in bytes.
fn memory(status: &Path, line: &str) -> Result<u64> {
    let text = fs::read_to_string(status)?;
    let value = text.lines().find_map(|text| text.strip_prefix(line));
    let kib: u64 = value
        .with_context(|| format!("no {line}"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024)
}

/// 16 bytes that look like a random serial number, and differ for each `n`.
fn serial(n: u32) -> [u8; 16] {
    let spread = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0x5a; 16];
    bytes[1..9].copy_from_slice(&spread.to_be_bytes());
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// A CA with a P-256 key.
pub(super) fn issuer() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

/// The time, Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}
