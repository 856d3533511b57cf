//! What the CRL that a certificate names says of it, fetched and read by OpenSSL.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools;

/// The reason for which the leaf in this file is on the CRL at its distribution point, in OpenSSL's words; `Unspecified` without
/// one, `None` where it is not listed.
///
/// # Errors
/// When the leaf names no distribution point, or no CRL is to be had there.
pub fn said_of(leaf: &Path) -> Result<Option<String>> {
    let mut show = Command::new(tools::openssl()?);
    show.args(["x509", "-noout", "-serial", "-ext", "crlDistributionPoints", "-in"]);
    let text = tools::output(show.arg(leaf))?;
    let word_after = |mark: &str| text.split(mark).nth(1)?.split_whitespace().next();
    let serial = word_after("serial=").context("no serial number")?;
    let url = word_after("URI:").context("no distribution point")?;
    let mut list = Command::new(tools::openssl()?);
    let list = tools::output(list.args(["crl", "-noout", "-text", "-in", url]))?;
    let mut entries = list.split("Serial Number:").skip(1);
    let mine = entries.find(|entry| entry.split_whitespace().next() == Some(serial));
    Ok(mine.map(|entry| {
        let reason = entry.split("CRL Reason Code:").nth(1);
        let word = reason.and_then(|reason| reason.trim().lines().next());
        word.map_or("Unspecified", str::trim).to_owned()
    }))
}
