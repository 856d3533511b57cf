//! CRLs as a relying party sees them come and go: numbers never fall, and each number has one content.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use certwave_pki::crl::Crl;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use crate::http;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Witness {
    /// By scope and number.
    contents: BTreeMap<(String, u64), String>,
    /// The last number of a scope, by who served it.
    last: BTreeMap<(SocketAddr, String), u64>,
}

impl Witness {
    /// Looks at the CRL that is served there for a scope (`issuer/partition`); its number, or `None` where nobody serves one.
    ///
    /// # Errors
    /// When it cannot be read, or contradicts what was seen before.
    pub async fn look(&mut self, at: SocketAddr, scope: &str) -> Result<Option<u64>> {
        let Ok((200, pem)) = http::get(at, &format!("/crl/{scope}.pem")).await else {
            return Ok(None);
        };
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).context("a CRL cut short")?;
        let crl = Crl::parse(&der).context("a CRL that cannot be read")?;
        self.see(at, scope, crl.number(), &pem)?;
        Ok(Some(crl.number()))
    }

    /// The CRL of this number that was seen for a scope, PEM.
    pub fn content(&self, scope: &str, number: u64) -> Option<&str> {
        self.contents.get(&(scope.to_owned(), number)).map(String::as_str)
    }

    /// How many different CRLs were seen.
    pub fn seen(&self) -> usize {
        self.contents.len()
    }

    fn see(&mut self, at: SocketAddr, scope: &str, number: u64, pem: &str) -> Result<()> {
        let last = self.last.entry((at, scope.to_owned())).or_insert(number);
        ensure!(*last <= number, "{scope}: {number} after {last} by {at}");
        *last = number;
        let key = (scope.to_owned(), number);
        let known = self.contents.entry(key).or_insert_with(|| pem.to_owned());
        ensure!(known == pem, "{scope}: two contents of number {number}");
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_falls_or_has_two_contents_contradicts() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut witness = Witness::default();
        for (from, number, content) in [(1, 5, "a"), (1, 7, "b"), (2, 5, "a"), (1, 7, "b")] {
            witness.see(at(from), "x", number, content).unwrap();
        }
        assert_eq!(witness.seen(), 2);
        for (from, number, content) in [(1, 5, "a"), (2, 7, "c")] {
            assert!(
                witness.see(at(from), "x", number, content).is_err(),
                "{number} {content}"
            );
        }
    }
}
