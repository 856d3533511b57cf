//! How we speak TLS as a client: to brokers, to gates, and to whoever publishes CRLs.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::Judging;

/// A client that trusts `roots` only, before it is said whether it has a certificate of its own.
///
/// # Errors
/// When the crypto library has no cipher suites.
pub(crate) fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        ClientConfig::builder_with_details(provider, Arc::new(Judging)).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots))
}

/// A client that trusts `anchors` only and shows `chain`.
///
/// # Errors
/// When an anchor cannot be read, or the key is not the certificate's.
pub(crate) fn mutual(
    anchors: &[CertificateDer<'static>],
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(anchor.clone())?;
    }
    trusting(roots)?.with_client_auth_cert(chain.to_vec(), key.clone_key())
}
