//! A small CA for these tests: root, intermediate and leaves of the shape that the controller issues.

use certwave_protocol::control::CONTROL_EKU_OID;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

/// 20 November 2026, 00:00 UTC, when these tests take place.
pub(crate) const NOW: i64 = 1_795_132_800;
pub(crate) const DAY: i64 = 86_400;

const KEY_ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b";

pub(crate) fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(crate) fn signing(key: &KeyPair) -> SigningKey {
    SigningKey::from_pkcs8(&key.serialize_der()).unwrap()
}

pub(crate) struct Ca {
    pub(crate) der: Der,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Leaf {
    pub(crate) der: Der,
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) key: SigningKey,
}

impl Leaf {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.der.as_ref())
    }
}

/// What a leaf is for; change a field to make a bad one.
pub(crate) struct Profile {
    pub(crate) names: Vec<String>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) key_usages: Vec<KeyUsagePurpose>,
    pub(crate) from: (i32, u8, u8),
    pub(crate) to: (i32, u8, u8),
    /// With CRL distribution point and caIssuers; control certificates have neither, as no door checks them.
    pub(crate) published: bool,
}

impl Profile {
    pub(crate) fn client(name: &str) -> Self {
        Self {
            names: vec![name.into()],
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            from: (2026, 11, 1),
            to: (2027, 2, 1),
            published: true,
        }
    }

    pub(crate) fn control(name: &str) -> Self {
        Self {
            usages: vec![ExtendedKeyUsagePurpose::Other(CONTROL_EKU_OID.to_vec())],
            published: false,
            ..Self::client(name)
        }
    }
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        let key = p256();
        let params = ca_params(name);
        let der = Der(params.self_signed(&key).unwrap().der().to_vec());
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_for(name, Vec::new())
    }

    pub(crate) fn intermediate_for(&self, name: &str, usages: Vec<ExtendedKeyUsagePurpose>) -> Self {
        let key = p256();
        let mut params = ca_params(name);
        params.extended_key_usages = usages;
        publication(&mut params);
        let der = Der(params.signed_by(&key, &self.issuer).unwrap().der().to_vec());
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn leaf(&self, profile: Profile) -> Leaf {
        let key = p256();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in profile.names {
            // A second common name replaces the first in rcgen; an own type with the same OID does not.
            let kind = match params.distinguished_name.iter().count() {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, name);
        }
        params.not_before = date_time_ymd(profile.from.0, profile.from.1, profile.from.2);
        params.not_after = date_time_ymd(profile.to.0, profile.to.1, profile.to.2);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = profile.key_usages;
        params.extended_key_usages = profile.usages;
        params.use_authority_key_identifier_extension = true;
        if profile.published {
            publication(&mut params);
        }
        let der = Der(params.signed_by(&key, &self.issuer).unwrap().der().to_vec());
        Leaf {
            der,
            pkcs8: key.serialize_der(),
            key: signing(&key),
        }
    }
}

/// PKCS#10 for `name`, signed by the key in `pkcs8`.
pub(crate) fn csr(name: &str, pkcs8: &[u8]) -> Der {
    let key = KeyPair::try_from(pkcs8).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Der(params.serialize_request(&key).unwrap().der().to_vec())
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2046, 1, 1);
    params
}

/// CRL distribution point and caIssuers with URLs of the length that real ones have.
fn publication(params: &mut CertificateParams) {
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec![format!("http://pki.example.com/crl/{KEY_ID}/2027-02.crl")],
    }];
    let url = format!("http://pki.example.com/ca/{KEY_ID}.cer");
    let method = tlv(0x06, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02]);
    let access = tlv(0x30, &[method, tlv(0x86, url.as_bytes())].concat());
    let aia = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], tlv(0x30, &access));
    params.custom_extensions.push(aia);
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    let mut out = vec![tag];
    if length >= 0x80 {
        out.push(0x81);
    }
    out.push(length);
    out.extend_from_slice(content);
    out
}
