//! The parsers of bytes from outside, each with good inputs to begin with and with what holds of all that it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_pki::crl::{self, Crl, CrlRequest, Entry, Reason};
use certwave_pki::ocsp::{
    self, CertStatus, HashAlgorithm, IssuerId, MAX_CERT_IDS, MAX_NONCE_BYTES, OcspRequest, OcspSigner, SingleStatus,
    StatusTimes,
};
use certwave_pki::{
    CaProfile, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, LeafRequest, LeafSubject, LeafTemplate, LeafUsage,
    PrivateKey, TemplateContext, certificates_from_pem, certificates_to_pem, create_leaf_csr, parse_certificate_info,
};
use certwave_protocol::envelope::{self, Unverified};
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::jws::SigningKey;

use super::{declared, device, neighbours};

pub(super) const NOW: i64 = 1_795_132_800;
/// The messages that the specification shows.
const SPECIFICATION: &str = include_str!("../../../docs/protocol.md");

/// Parses, checks what must hold of what was taken, and answers whether it was.
pub(super) type Parse = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// One parser.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Good inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Parses, checks what must hold of what was taken, and answers whether it was.
    pub parse: Parse,
}

impl Target {
    pub(super) fn new(
        name: &'static str,
        seeds: Vec<Vec<u8>>,
        parse: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            seeds,
            parse: Box::new(parse),
        }
    }
}

/// A key, and the certificate by which it says who it is.
pub(super) struct Named {
    pub(super) key: PrivateKey,
    pub(super) certificate: Vec<u8>,
}

impl Named {
    pub(super) fn issue(ca: &CertificateAuthority, name: &str, usage: LeafUsage) -> Result<Self> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let request = LeafRequest {
            subject: &LeafSubject::common_name(name)?,
            public_key: key.public_key(),
            usage,
            validity: Duration::from_hours(24),
            backdate: Duration::from_hours(1),
        };
        let certificate = ca.issue(&request, NOW)?.der.to_vec();
        Ok(Self { key, certificate })
    }
}

/// Every parser.
///
/// # Errors
/// When the good inputs cannot be made.
pub fn targets() -> Result<Vec<Target>> {
    let ca = CertificateAuthority::self_signed(
        PrivateKey::generate(KeyAlgorithm::EcdsaP256)?,
        &CaProfile::named("Plant root"),
        NOW,
    )?;
    let leaf = URL_SAFE_NO_PAD.encode([1; 32]);
    let mut all = vec![
        csr()?,
        certificate(&ca)?,
        pem(&ca),
        crl(&ca)?,
        ocsp_request(&ca)?,
        ocsp_response(&ca)?,
        envelope()?,
        message("message", &format!(r#""x5t#S256":"{leaf}""#)),
        declared::imported_ca(&ca)?,
        declared::objects()?,
    ];
    all.extend(device::targets(&ca)?);
    all.extend(neighbours::targets());
    Ok(all)
}

fn csr() -> Result<Target> {
    let mut seeds = Vec::new();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        seeds.push(create_leaf_csr(&PrivateKey::generate(algorithm)?, "pump-0042")?);
    }
    let good = seeds.clone();
    let policy = CsrPolicy::default();
    let keys: Vec<_> = good.iter().filter_map(|csr| Csr::parse(csr, &policy).ok()).collect();
    Ok(Target::new("csr", seeds, move |input| {
        let Ok(csr) = Csr::parse(input, &policy) else {
            return false;
        };
        // Nobody can sign for a key without having it, so what is taken can only be of the keys that we have.
        assert!(
            keys.iter().any(|known| known.spki_der() == csr.spki_der()),
            "a request was forged"
        );
        true
    }))
}

fn certificate(ca: &CertificateAuthority) -> Result<Target> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let csr = Csr::parse(&create_leaf_csr(&key, "pump-0042")?, &CsrPolicy::default())?;
    let subject = LeafTemplate::default().render(&TemplateContext {
        device_id: "pump-0042",
        fleet: "pumps",
        namespace: "plant-a",
        labels: &BTreeMap::new(),
    })?;
    let leaf = ca.issue(
        &LeafRequest {
            subject: &subject,
            public_key: csr.public_key(),
            usage: LeafUsage::Device,
            validity: Duration::from_hours(24),
            backdate: Duration::from_hours(1),
        },
        NOW,
    )?;
    let seeds = vec![ca.certificate_der().to_vec(), leaf.der.to_vec()];
    Ok(Target::new("certificate", seeds, |input| {
        parse_certificate_info(input).is_ok_and(|info| info.not_before <= info.not_after || info.not_after >= 0)
    }))
}

fn pem(ca: &CertificateAuthority) -> Target {
    let one = certificates_to_pem([ca.certificate_der()]);
    let seeds = vec![one.clone().into_bytes(), format!("{one}{one}").into_bytes()];
    Target::new("pem", seeds, |input| {
        let parsed = std::str::from_utf8(input).ok().and_then(certificates_from_pem);
        parsed.is_some_and(|certificates| !certificates.is_empty())
    })
}

fn crl(ca: &CertificateAuthority) -> Result<Target> {
    let entries: Vec<_> = Reason::ALL
        .into_iter()
        .enumerate()
        .map(|(number, reason)| Entry {
            serial: format!("{:040x}", 0x10_0000 + number),
            revoked_at: NOW - 60,
            reason,
        })
        .collect();
    let list = |entries| {
        crl::encode(
            ca,
            &CrlRequest {
                scope_url: "http://pki.example.com/crl/00/2026-11.crl",
                number: 7,
                this_update: NOW,
                next_update: NOW + 3600,
                entries,
            },
        )
    };
    let seeds = vec![list(&entries)?, list(&[])?];
    let (genuine, authority) = (seeds.clone(), ca.certificate_der().to_vec());
    Ok(Target::new("crl", seeds, move |input| {
        let Ok(crl) = Crl::parse(input) else {
            return false;
        };
        assert_eq!(crl.entries().count(), crl.len(), "entries are lost or gained");
        assert!(
            crl.verify(&authority).is_err() || genuine.iter().any(|good| same_but_for_signature(good, input)),
            "a list was forged"
        );
        true
    }))
}

/// A signature may be written in more than one way (ECDSA's twin); what it covers may not.
pub(super) fn same_but_for_signature(good: &[u8], input: &[u8]) -> bool {
    let covered = good.len().saturating_sub(90);
    input.len().abs_diff(good.len()) < 8 && input.get(8..covered) == good.get(8..covered)
}

fn ocsp_request(ca: &CertificateAuthority) -> Result<Target> {
    let issuer = IssuerId::of(ca);
    let serial = "5f3a6b9c0d1e2f405162738495a6b7c8".parse()?;
    let mut seeds = Vec::new();
    for algorithm in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
        let id = issuer.cert_id(algorithm, &serial);
        let ids = tlv(0x30, &tlv(0x30, &id));
        seeds.push(tlv(0x30, &tlv(0x30, &ids)));
        let nonce = [&[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2][..], &tlv(4, &tlv(4, &[9; 32]))].concat();
        let extensions = tlv(0xa2, &tlv(0x30, &tlv(0x30, &nonce)));
        seeds.push(tlv(0x30, &tlv(0x30, &[ids, extensions].concat())));
    }
    Ok(Target::new("ocsp-request", seeds, |input| {
        let Ok(request) = OcspRequest::parse(input) else {
            return false;
        };
        let count = request.cert_ids().len();
        assert!((1..=MAX_CERT_IDS).contains(&count), "{count} certificates");
        assert!(request.nonce().is_none_or(|n| (1..=MAX_NONCE_BYTES).contains(&n.len())));
        assert_eq!(request.reusable().is_some(), count == 1 && request.nonce().is_none());
        true
    }))
}

fn ocsp_response(ca: &CertificateAuthority) -> Result<Target> {
    let Named { key, certificate } = Named::issue(ca, "~ocsp", LeafUsage::OcspSigner)?;
    let signer = OcspSigner::new(key, certificate.into(), ca.certificate_der())?;
    let cert_id = IssuerId::of(ca).cert_id(HashAlgorithm::Sha256, &"5f3a6b9c0d1e2f405162738495a6b7c8".parse()?);
    let status = CertStatus::Revoked {
        at: NOW - 60,
        reason: Reason::KeyCompromise,
    };
    let times = StatusTimes {
        this_update: NOW,
        next_update: NOW + 3600,
        produced_at: NOW,
    };
    let single = SingleStatus {
        cert_id: &cert_id,
        status,
    };
    let answer = signer.sign(&[single], Some(&[9; 32]), times)?.der;
    let issuer = ca.certificate_der().to_vec();
    Ok(Target::new("ocsp-response", vec![answer], move |input| {
        let believed = ocsp::check(input, &issuer, &cert_id, NOW);
        // Whatever else is believed of it, only what was signed.
        assert!(
            !believed.as_ref().is_ok_and(|said| said.status != status),
            "an answer was forged"
        );
        believed.is_ok()
    }))
}

/// Tag, length and value, DER, below 64 KiB.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend_from_slice(value);
    out
}

/// JSON of the specification that is a message's payload.
pub(super) fn payloads() -> Vec<Vec<u8>> {
    let blocks = SPECIFICATION.split("```json\n").skip(1);
    let texts = blocks.filter_map(|block| block.split("```").next());
    texts
        .filter(|text| text.contains("\"session\""))
        .filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .map(|value| value.to_string().into_bytes())
        .collect()
}

fn envelope() -> Result<Target> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let key = SigningKey::from_pkcs8(key.secret_pkcs8_der())?;
    let up = payloads()
        .iter()
        .filter_map(|json| serde_json::from_slice(json).ok())
        .map(|payload| envelope::sign_up(&payload, &key, Fingerprint::of(b"leaf")))
        .filter(|message| Unverified::parse(message).is_ok())
        .collect::<Vec<_>>();
    up.first().context("the specification shows no message that goes up")?;
    let genuine: Vec<_> = up.iter().map(|message| covered(message)).collect();
    Ok(Target::new("envelope", up, move |input| {
        let Ok(unverified) = Unverified::parse(input) else {
            return false;
        };
        // What verifies is what was signed, byte for byte; the signature itself has more than one form.
        let believed = unverified.verify(key.public_key()).is_ok();
        assert!(!believed || genuine.contains(&covered(input)), "a message was forged");
        true
    }))
}

/// Header and payload: all but the signature.
pub(super) fn covered(message: &[u8]) -> Vec<u8> {
    let end = message.iter().rposition(|byte| *byte == b'.').unwrap_or(message.len());
    message[..end].to_vec()
}

/// The JSON within an envelope, which a change of the envelope's Base64 seldom leaves readable; its header has this field.
pub(super) fn message(name: &'static str, field: &str) -> Target {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","typ":"certwave+jws",{field}}}"#));
    let signature = URL_SAFE_NO_PAD.encode([7; 64]);
    let parse = move |json: &[u8]| {
        Unverified::parse(format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(json)).as_bytes()).is_ok()
    };
    let seeds = payloads().into_iter().filter(|json| parse(json)).collect();
    Target::new(name, seeds, parse)
}
