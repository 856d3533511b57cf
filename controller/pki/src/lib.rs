//! The public key infrastructure of Certwave: keys, certificate authorities, CSR checks, leaf certificates, CRLs and OCSP.
//!
//! Everything here is pure and synchronous. There is no clock: times are Unix seconds (`i64`) passed in; randomness
//! (keys, serial numbers, ECDSA nonces) comes from AWS-LC. Names follow RFC 5280.
//!
//! The way of a device's certificate:
//!
//! ```
//! use std::{collections::BTreeMap, time::Duration};
//! use certwave_pki::{
//!     CaProfile, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, LeafRequest, LeafTemplate, LeafUsage, PrivateKey,
//!     TemplateContext, create_leaf_csr,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = 1_790_000_000;
//! let root_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
//! let ca = CertificateAuthority::self_signed(root_key, &CaProfile::named("Plant root"), now)?;
//!
//! // On the device: a fresh key and a CSR.
//! let device_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
//! let request = create_leaf_csr(&device_key, "pump-17")?;
//!
//! // In the controller: check the CSR; take nothing but the public key from it.
//! let csr = Csr::parse(&request, &CsrPolicy::default())?;
//! let subject = LeafTemplate::default().render(&TemplateContext {
//!     device_id: "pump-17",
//!     fleet: "pumps",
//!     namespace: "plant-a",
//!     labels: &BTreeMap::new(),
//! })?;
//! let issued = ca.issue(
//!     &LeafRequest {
//!         subject: &subject,
//!         public_key: csr.public_key(),
//!         usage: LeafUsage::Device,
//!         validity: Duration::from_hours(24),
//!         backdate: Duration::from_hours(1),
//!     },
//!     now,
//! )?;
//! assert_eq!(issued.not_after, now + 24 * 3600);
//! # Ok(())
//! # }
//! ```

mod algorithm;
mod asn1;
mod authority;
mod certificate;
pub mod crl;
mod csr;
mod import;
mod issue;
mod key;
mod name;
pub mod ocsp;
mod pem;
mod public_key;
mod publication;
mod serial;
mod signature;
mod template;
mod time;

pub use algorithm::{KeyAlgorithm, UnknownKeyAlgorithm};
pub use authority::{CaError, CaProfile, CertificateAuthority, create_ca_csr};
pub use certificate::{CertificateInfo, ParseError, parse_certificate_info, parse_certificate_info_pem};
pub use csr::{CreateCsrError, Csr, CsrError, CsrPolicy, MAX_CSR_BYTES, create_leaf_csr};
pub use import::ImportError;
pub use issue::{CONTROL_EKU, IssueError, Issued, LeafRequest, LeafUsage};
pub use key::{KeyError, PrivateKey};
pub use name::{AttributeType, CaSubject, LeafSubject, NameError, San, SanKind};
pub use pem::{certificates_from_pem, certificates_to_pem, crl_to_pem, csr_from_pem, csr_to_pem};
pub use public_key::{KeyId, PublicKeyError, SubjectPublicKey};
pub use publication::{CA_PARTITION, FULL_PARTITION, Publication, PublicationError, partition_of};
pub use serial::{Serial, SerialError};
pub use template::{LeafTemplate, TemplateContext, TemplateError, TemplateSpec};
