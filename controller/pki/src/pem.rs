//! PEM (RFC 7468). Reading is lenient, as Secrets are written by many tools: text around the sections is skipped.

use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use x509_cert::der::pem::{LineEnding, encode_string};

/// All certificates of a PEM text, in order. Other sections and text are skipped; `None` when a section is damaged.
pub fn certificates_from_pem(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
}

/// Certificates as one PEM text, in the order given.
pub fn certificates_to_pem<T: AsRef<[u8]>>(certificates: impl IntoIterator<Item = T>) -> String {
    certificates
        .into_iter()
        .map(|der| encode("CERTIFICATE", der.as_ref()))
        .collect()
}

/// The first PKCS#10 request of a PEM text, not checked; `None` when there is none.
pub fn csr_from_pem(pem: &str) -> Option<Vec<u8>> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .ok()
        .map(|der| der.as_ref().to_vec())
}

/// A DER PKCS#10 request as PEM.
pub fn csr_to_pem(der: &[u8]) -> String {
    encode("CERTIFICATE REQUEST", der)
}

/// A DER CRL as PEM (RFC 7468, 6).
pub fn crl_to_pem(der: &[u8]) -> String {
    encode("X509 CRL", der)
}

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    // Fails only for a label that is not ASCII or a text longer than the address space.
    encode_string(label, LineEnding::LF, der).unwrap_or_default()
}
