//! What the tests share: a fixed time, CAs and devices made quickly, and the foreign verifiers.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use certwave_pki::{
    CaProfile, CertificateAuthority, Csr, CsrPolicy, Issued, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage,
    PrivateKey, SubjectPublicKey, create_leaf_csr,
};

/// 2026-09-21T14:13:20Z
pub(crate) const NOW: i64 = 1_790_000_000;
pub(crate) const DAY: Duration = Duration::from_hours(24);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn root(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    CertificateAuthority::self_signed(key, &CaProfile::named("Plant root"), NOW).unwrap()
}

pub(crate) fn device_csr(algorithm: KeyAlgorithm) -> Csr {
    let key = PrivateKey::generate(algorithm).unwrap();
    Csr::parse(&create_leaf_csr(&key, "whoever").unwrap(), &CsrPolicy::default()).unwrap()
}

pub(crate) fn issue(ca: &CertificateAuthority, csr: &Csr, validity: Duration) -> Issued {
    let subject = LeafSubject::common_name("pump-17").unwrap();
    let request = LeafRequest {
        validity,
        ..a_day(&subject, csr.public_key(), LeafUsage::Device)
    };
    ca.issue(&request, NOW).unwrap()
}

/// A leaf for a day that reaches an hour back.
pub(crate) const fn a_day<'a>(
    subject: &'a LeafSubject,
    public_key: &'a SubjectPublicKey,
    usage: LeafUsage,
) -> LeafRequest<'a> {
    LeafRequest {
        subject,
        public_key,
        usage,
        validity: DAY,
        backdate: HOUR,
    }
}

/// Runs a program; its output is shown when it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    if status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?}: {text}"))
    }
}

pub(crate) fn openssl(args: &[&str]) -> Result<String, String> {
    run(Command::new("openssl").args(args))
}

/// The Go verifier of `e2e/verify`, built once for each run of the tests.
pub(crate) fn go_verify(args: &[&str]) -> Result<String, String> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/verify");
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certwave-verify");
        run(Command::new("go")
            .arg("build")
            .arg("-o")
            .arg(&binary)
            .arg(".")
            .current_dir(source))
        .unwrap();
        binary
    });
    run(Command::new(binary).args(args))
}

/// A file in `dir`, as text for a command line.
pub(crate) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
