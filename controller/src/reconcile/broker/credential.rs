//! Certificates with their keys, as they stand in Secrets.

use certwave_pki::{CertificateInfo, PrivateKey, certificates_from_pem, parse_certificate_info};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rustls_pki_types::CertificateDer;

use crate::reconcile::secrets::{self, ANCHORS, CERTIFICATE, KEY};
use crate::reconcile::status::{Verdict, camel_case};

/// A certificate, those above it, its key, and what those who check it must trust.
pub(super) struct Credential {
    /// The leaf first, without the root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8, DER; wiped when dropped.
    pub(super) key: zeroize::Zeroizing<Vec<u8>>,
    /// Anchors for `chain`.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    /// The leaf.
    pub(super) info: CertificateInfo,
}

impl Credential {
    /// Reads a Secret with `tls.crt` and `tls.key`, and `ca.crt` where the chain lacks the root. A root in `tls.crt` is taken
    /// as an anchor.
    pub(super) fn read(secret: &Secret) -> Result<Self, Verdict> {
        let name = secret.name_any();
        let text = |key: &str| {
            secrets::text(secret, key)
                .ok_or_else(|| Verdict::no("SecretIncomplete", format!("the Secret {name} lacks {key} in PEM")))
        };
        let certificates = |pem: &str, key: &str| {
            certificates_from_pem(pem).filter(|all| !all.is_empty()).ok_or_else(|| {
                Verdict::no(
                    "NoCertificate",
                    format!("{key} of the Secret {name} holds no readable certificate"),
                )
            })
        };
        let mut chain = certificates(&text(CERTIFICATE)?, CERTIFICATE)?;
        let key = PrivateKey::from_pem(&text(KEY)?).map_err(|e| {
            Verdict::no(
                &format!("Key{}", camel_case(e.category())),
                format!("tls.key of the Secret {name}: {e}"),
            )
        })?;
        let unreadable = |e: certwave_pki::ParseError| {
            Verdict::no(&camel_case(e.category()), format!("tls.crt of the Secret {name}: {e}"))
        };
        let infos = chain
            .iter()
            .map(|der| parse_certificate_info(der).map_err(unreadable))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(info) = infos.first().cloned() else {
            return Err(Verdict::no(
                "NoCertificate",
                format!("tls.crt of the Secret {name} is empty"),
            ));
        };
        if info.spki_sha256 != hex::encode(key.public_key().spki_sha256()) {
            let message = format!("tls.key of the Secret {name} does not belong to the first certificate of tls.crt");
            return Err(Verdict::no("KeyMismatch", message));
        }
        let mut anchors = match secrets::text(secret, ANCHORS) {
            Some(pem) => certificates(&pem, ANCHORS)?,
            None => Vec::new(),
        };
        let topmost = chain.last().cloned();
        if infos.len() > 1 && infos.last().is_some_and(|last| last.subject == last.issuer) {
            anchors.extend(chain.pop());
        } else if anchors.is_empty() {
            anchors.extend(topmost);
        }
        Ok(Self {
            chain,
            key: zeroize::Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            anchors,
            info,
        })
    }

    /// Refuses one that is not valid now or names somebody else. `now` in Unix seconds.
    pub(super) fn check(self, common_name: &str, now: i64) -> Result<Self, Verdict> {
        if self.info.common_name.as_deref() != Some(common_name) {
            let message = format!(
                "the certificate's common name is {:?}; it must be {common_name}",
                self.info.common_name.as_deref().unwrap_or_default()
            );
            return Err(Verdict::no("WrongName", message));
        }
        if now > self.info.not_after {
            return Err(Verdict::no(
                "Expired",
                format!("the certificate of {common_name} has expired; replace it"),
            ));
        }
        if now < self.info.not_before {
            return Err(Verdict::no(
                "NotYetValid",
                format!("the certificate of {common_name} is not valid yet"),
            ));
        }
        Ok(self)
    }
}
