//! Clients that share no code with us: OpenSSL's, Go's x/crypto/ocsp, and Python's cryptography. Each checks the signature, that the
//! CA delegated it, and the times, before it believes an answer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use certwave_e2e::tools;

const VERIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verify");
const HASHES: [&str; 2] = ["sha1", "sha256"];
const METHODS: [&str; 2] = ["GET", "POST"];

/// A certificate that is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The URL of the responder, as certificates name it.
    pub(super) url: &'a str,
    /// PEM file of the CA.
    pub(super) issuer: &'a Path,
    /// Serial number, hexadecimal.
    pub(super) serial: &'a str,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Good,
    /// With the number of its reason (RFC 5280, 5.3.1).
    Revoked(u8),
    Unknown,
    /// No answer, and why (RFC 6960, 4.2.1).
    Failure(String),
}

pub(super) const HOLD: Said = Said::Revoked(6);
pub(super) const KEY_COMPROMISE: Said = Said::Revoked(1);

pub(super) fn unauthorized() -> Said {
    Said::Failure("unauthorized".to_owned())
}

pub(super) fn try_later() -> Said {
    Said::Failure("try later".to_owned())
}

/// What every judge is told, by every hash, over every method, with a nonce and without: the same by all, or an error.
pub(super) fn all(asked: Asked<'_>) -> Result<Said> {
    let mut said = Vec::new();
    for hash in HASHES {
        for nonce in [true, false] {
            said.push((format!("openssl {hash} nonce={nonce}"), openssl(asked, hash, nonce)?));
        }
        for method in METHODS {
            said.push((format!("go {hash} {method}"), go(asked, hash, method)?));
            for nonce in ["-", "0f", &"5a".repeat(32), &"a5".repeat(128)] {
                let octets = nonce.len() / 2;
                said.push((
                    format!("python {hash} {method} nonce of {octets}"),
                    python(asked, hash, method, nonce)?,
                ));
            }
        }
    }
    let first = said[0].1.clone();
    if said.iter().any(|(_, one)| *one != first) {
        bail!("they differ: {said:#?}");
    }
    Ok(first)
}

/// What OpenSSL's client is told; it sends by POST.
pub(super) fn openssl(asked: Asked<'_>, hash: &str, nonce: bool) -> Result<Said> {
    let mut command = Command::new(tools::openssl()?);
    command.args(["ocsp", "-no-CApath", "-no-CAstore", "-timeout", "10", "-url", asked.url]);
    command
        .arg("-CAfile")
        .arg(asked.issuer)
        .arg("-issuer")
        .arg(asked.issuer);
    command.arg(if nonce { "-nonce" } else { "-no_nonce" });
    command.args([&format!("-{hash}"), "-serial", &format!("0x{}", asked.serial)]);
    let output = command.output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.join("\n");
    if let Some(failure) = text.split("Responder Error: ").nth(1) {
        return Ok(failure_of(failure.split(" (").next().unwrap_or_default()));
    }
    if !text.contains("Response verify OK") || text.contains("WARNING") {
        bail!("{command:?}: {text}");
    }
    let lines = text.lines();
    let mut lines = lines.skip_while(|line| !line.starts_with(&format!("0x{}: ", asked.serial)));
    let status = lines.next().and_then(|line| line.split(": ").nth(1));
    match status.with_context(|| format!("no status: {text}"))? {
        "good" => Ok(Said::Good),
        "unknown" => Ok(Said::Unknown),
        "revoked" => {
            let reason = text.split("Reason: ").nth(1).and_then(|rest| rest.lines().next());
            Ok(Said::Revoked(match reason {
                None => 0,
                Some("keyCompromise") => 1,
                Some("superseded") => 4,
                Some("certificateHold") => 6,
                Some(other) => bail!("an unexpected reason: {other}"),
            }))
        }
        other => bail!("an unexpected status: {other}"),
    }
}

/// What Go's client is told, linted by zlint.
pub(super) fn go(asked: Asked<'_>, hash: &str, method: &str) -> Result<Said> {
    let mut command = Command::new(tools::verifier()?);
    command.args(["ocsp-query", "-url", asked.url, "-serial", asked.serial]);
    command
        .args(["-hash", hash, "-method", method, "-issuer"])
        .arg(asked.issuer);
    let text = tools::output(&mut command)?;
    let words: Vec<_> = text.split_whitespace().collect();
    match words.as_slice() {
        ["good", _, _] => Ok(Said::Good),
        ["unknown", _, _] => Ok(Said::Unknown),
        ["revoked", _, _, _, reason] => Ok(Said::Revoked(reason.parse()?)),
        _ => Ok(failure_of(text.trim())),
    }
}

/// What Python's client is told; see `verify/ocsp.py` for what else it looks at.
fn python(asked: Asked<'_>, hash: &str, method: &str, nonce: &str) -> Result<Said> {
    let mut command = Command::new(tools::python()?);
    command
        .arg(Path::new(VERIFY).join("ocsp.py"))
        .arg(asked.url)
        .arg(asked.issuer);
    let text = tools::output(command.args([asked.serial, hash, method, nonce]))?;
    let words: Vec<_> = text.split_whitespace().collect();
    match words.as_slice() {
        ["good"] => Ok(Said::Good),
        ["unknown"] => Ok(Said::Unknown),
        ["revoked"] => Ok(Said::Revoked(0)),
        ["revoked", "keyCompromise"] => Ok(KEY_COMPROMISE),
        ["revoked", "certificateHold"] => Ok(HOLD),
        _ => Ok(failure_of(&text.trim().replace('_', " "))),
    }
}

/// Each library has its own way to write the names.
fn failure_of(name: &str) -> Said {
    Said::Failure(match name {
        "trylater" => "try later".to_owned(),
        name => name.to_owned(),
    })
}
