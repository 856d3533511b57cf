//! CAs that are brought along: what is taken, and each error.

use certwave_pki::{
    CaProfile, CaSubject, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, PrivateKey, certificates_to_pem,
    create_ca_csr, csr_to_pem,
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::tools::{DAY, NOW, device_csr, issue, openssl, root, today, write};

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_pkcs8_der(key.secret_pkcs8_der()).unwrap()
}

fn category(pem: &str, key: PrivateKey, now: i64) -> &'static str {
    CertificateAuthority::import(pem, key, now).unwrap_err().category()
}

/// A self-signed certificate made by OpenSSL with these extensions, and its key.
pub(crate) fn openssl_ca(subject: &str, extensions: &[&str]) -> (String, PrivateKey) {
    let dir = TempDir::new().unwrap();
    let key = key();
    let key_file = write(dir.path(), "key.pem", key.to_pkcs8_pem().expose_secret());
    let config = format!(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n{}\n",
        extensions.join("\n")
    );
    let config = write(dir.path(), "openssl.cnf", config);
    let pem = openssl(&[
        "req", "-x509", "-new", "-key", &key_file, "-subj", subject, "-days", "3650", "-config", &config,
    ])
    .unwrap();
    (pem, key)
}

pub(crate) const BC: &str = "basicConstraints=critical,CA:TRUE";
pub(crate) const KU: &str = "keyUsage=critical,keyCertSign,cRLSign";
const SKI: &str = "subjectKeyIdentifier=hash";

#[test]
fn a_chain_with_and_without_its_root_is_taken() {
    let root = root(KeyAlgorithm::Rsa2048);
    let sub_key = key();
    let sub = root.subordinate(copy(&sub_key), &CaProfile::named("sub"), NOW).unwrap();
    let below_key = key();
    let below = sub
        .subordinate(copy(&below_key), &CaProfile::named("below"), NOW)
        .unwrap();
    let path = [below.certificate_der(), sub.certificate_der(), root.certificate_der()];
    let whole = CertificateAuthority::import(&certificates_to_pem(path), copy(&below_key), NOW).unwrap();
    assert_eq!(whole.root_der(), Some(root.certificate_der()));
    assert_eq!(whole.chain(), std::slice::from_ref(sub.certificate_der()));
    assert_eq!(whole.key_id(), below.key_id());
    let partial = CertificateAuthority::import(&certificates_to_pem(&path[..2]), below_key, NOW).unwrap();
    assert_eq!(partial.root_der(), None);
    assert_eq!(partial.issuing_chain().count(), 2);
    issue(&partial, &device_csr(KeyAlgorithm::EcdsaP256), DAY);
}

#[test]
fn a_ca_made_by_openssl_is_taken() {
    let (pem, key) = openssl_ca("/C=DE/O=Plant/CN=brought along", &[BC, KU, SKI]);
    let ca = CertificateAuthority::import(&pem, key, today()).unwrap();
    assert!(ca.is_root());
}

#[test]
fn a_root_that_is_repeated_is_taken_once() {
    let (pem, key) = openssl_ca("/CN=x", &[BC, KU, SKI]);
    let ca = CertificateAuthority::import(&pem.repeat(2), key, today()).unwrap();
    assert!(ca.is_root() && ca.chain().is_empty());
}

#[test]
fn a_request_signed_outside_comes_back_as_a_ca() {
    let (dir, outside, sub_key) = (
        TempDir::new().unwrap(),
        openssl_ca("/CN=outside", &[BC, KU, SKI]),
        key(),
    );
    let csr = create_ca_csr(&sub_key, &CaSubject::named("ours")).unwrap();
    Csr::parse(&csr, &CsrPolicy::default()).unwrap();
    let extensions = [BC, KU, SKI, "authorityKeyIdentifier=keyid"].join("\n");
    let pem = openssl(&[
        "x509",
        "-req",
        "-days",
        "30",
        "-in",
        &write(dir.path(), "csr.pem", csr_to_pem(&csr)),
        "-CA",
        &write(dir.path(), "ca.pem", &outside.0),
        "-CAkey",
        &write(dir.path(), "ca.key", outside.1.to_pkcs8_pem().expose_secret()),
        "-CAcreateserial",
        "-extfile",
        &write(dir.path(), "ext", extensions),
    ])
    .unwrap();
    let ca = CertificateAuthority::import(&format!("{pem}{}", outside.0), copy(&sub_key), today()).unwrap();
    assert!(!ca.is_root() && ca.root_der().is_some());
    assert_eq!(category(&pem, outside.1, today()), "key-mismatch");
}

#[test]
fn each_defect_has_its_error() {
    let own = key();
    let ca = CertificateAuthority::self_signed(copy(&own), &CaProfile::named("a"), NOW).unwrap();
    let pem = certificates_to_pem([ca.certificate_der()]);
    assert_eq!(category("", key(), NOW), "no-certificate");
    let foreign = certificates_to_pem([root(KeyAlgorithm::EcdsaP256).certificate_der()]);
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(category(damaged, key(), NOW), "unreadable");
    assert_eq!(category(&pem, key(), NOW), "key-mismatch");
    assert_eq!(category(&pem, copy(&own), ca.not_after() + 1), "expired");
    assert_eq!(category(&pem, copy(&own), ca.not_before() - 1), "not-yet-valid");
    assert_eq!(
        category(&format!("{pem}{foreign}").repeat(5), copy(&own), NOW),
        "too-long"
    );
    assert_eq!(category(&format!("{pem}{foreign}"), copy(&own), NOW), "broken-chain");

    for (subject, extensions, expected) in [
        ("/CN=x", &["basicConstraints=CA:FALSE", KU, SKI][..], "not-ca"),
        ("/CN=x", &[KU, SKI], "not-ca"),
        ("/CN=x", &[BC, "keyUsage=cRLSign", SKI], "missing-key-cert-sign"),
        ("/CN=x", &[BC, SKI], "missing-key-cert-sign"),
        ("/CN=x", &[BC, "keyUsage=keyCertSign", SKI], "missing-crl-sign"),
        ("/CN=x", &[BC, KU, "subjectKeyIdentifier=none"], "missing-key-id"),
        ("/CN=x", &[BC, KU, SKI, "extendedKeyUsage=serverAuth"], "no-client-auth"),
        (
            "/CN=x",
            &[BC, KU, SKI, "nameConstraints=permitted;DNS:example.com"],
            "unsupported-extension",
        ),
        ("/OU=a/OU=b/CN=x", &[BC, KU, SKI], "unsupported-name"),
    ] {
        let (pem, key) = openssl_ca(subject, extensions);
        assert_eq!(category(&pem, key, today()), expected, "{subject} {extensions:?}");
    }
}

#[test]
fn a_leafs_certificate_is_not_a_cas() {
    let ca = root(KeyAlgorithm::EcdsaP256);
    let device = key();
    let request = certwave_pki::create_leaf_csr(&device, "x").unwrap();
    let leaf = issue(&ca, &Csr::parse(&request, &CsrPolicy::default()).unwrap(), DAY);
    let pem = certificates_to_pem([&leaf.der, ca.certificate_der()]);
    assert_eq!(category(&pem, device, NOW), "not-ca");
}

#[test]
fn a_path_that_is_longer_than_its_constraint_is_refused() {
    // The root allows no CA below it; a certificate made with the same key and name, but without that limit, signs one.
    let root_key = key();
    let limited = CaProfile {
        path_len: Some(0),
        ..CaProfile::named("root")
    };
    let limited = CertificateAuthority::self_signed(copy(&root_key), &limited, NOW).unwrap();
    let unlimited = CertificateAuthority::self_signed(root_key, &CaProfile::named("root"), NOW).unwrap();
    let sub_key = key();
    let sub = unlimited
        .subordinate(copy(&sub_key), &CaProfile::named("sub"), NOW)
        .unwrap();
    let pem = certificates_to_pem([sub.certificate_der(), limited.certificate_der()]);
    assert_eq!(category(&pem, sub_key, NOW), "path-len");
}

#[test]
fn a_root_whose_own_signature_is_wrong_is_refused() {
    let own = key();
    let ca = CertificateAuthority::self_signed(copy(&own), &CaProfile::named("a"), NOW).unwrap();
    let mut der = ca.certificate_der().to_vec();
    // The last byte belongs to the signature's second integer.
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(category(&certificates_to_pem([der]), own, NOW), "broken-chain");
}
