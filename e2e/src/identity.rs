//! Certificates for what the tests themselves run or pose as. The product's own certificates come from the product.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// A certificate and its private key, both in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The leaf, or a chain that begins with it.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// A certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new self-signed P-256 CA.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key()?;
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// One that is there already, by its certificate and key in PEM.
    ///
    /// # Errors
    /// When they are unreadable.
    pub fn of(certificate: String, key: &str) -> Result<Self> {
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(key)?)?,
            certificate,
        })
    }

    /// Its certificate in PEM.
    pub fn certificate(&self) -> String {
        self.certificate.clone()
    }

    /// A server certificate for 127.0.0.1, `::1` and localhost.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn server(&self, name: &str) -> Result<Identity> {
        self.sign(server(name)?)
    }

    /// The same, ended long ago.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn expired_server(&self, name: &str) -> Result<Identity> {
        let mut params = server(name)?;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.sign(params)
    }

    /// A client certificate whose CN is `name`; `groups` become O, which Kubernetes reads as groups.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn client(&self, name: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = params(name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A fresh P-256 key pair: the private key (PKCS#8) and the public key, both in PEM.
///
/// # Errors
/// When the crypto library refuses.
pub fn key_pair() -> Result<(String, String)> {
    let key = new_key()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn new_key() -> Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn server(name: &str) -> Result<CertificateParams> {
    let mut params = params(name);
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress("::1".parse()?),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
