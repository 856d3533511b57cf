//! Every key algorithm as root, subordinate and leaf, before OpenSSL, webpki, Go and zlint.

use std::time::Duration;

use certwave_pki::{
    AttributeType, CA_PARTITION, CONTROL_EKU, CaProfile, CaSubject, CertificateAuthority, Issued, KeyAlgorithm,
    LeafRequest, LeafSubject, LeafTemplate, LeafUsage, PrivateKey, Publication, San, SanKind, TemplateContext,
    TemplateSpec, certificates_to_pem,
    crl::{self, CrlRequest, Entry, Reason},
};
use certwave_protocol::control::CONTROL_EKU_OID;
use rustls_pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;
use webpki::{KeyUsage, anchor_from_trusted_cert};

use crate::import::{BC, KU, openssl_ca};
use crate::tools::{NOW, a_day, device_csr, go_verify, openssl, write};

const BASE: &str = "http://pki.example.com";

fn pki(root: KeyAlgorithm, sub: KeyAlgorithm) -> (CertificateAuthority, CertificateAuthority) {
    let publication = Publication::new(BASE).unwrap().with_ocsp();
    let subject = CaSubject {
        organization: Some("Example Wasserwerke AG".into()),
        country: Some("DE".into()),
        ..CaSubject::named("Plant root")
    };
    let profile = CaProfile {
        subject,
        path_len: Some(1),
        ..CaProfile::named("")
    };
    let root = CertificateAuthority::self_signed(PrivateKey::generate(root).unwrap(), &profile, NOW)
        .unwrap()
        .with_publication(publication.clone());
    let sub = root
        .subordinate(
            PrivateKey::generate(sub).unwrap(),
            &CaProfile::named("Plant devices"),
            NOW,
        )
        .unwrap()
        .with_publication(publication);
    (root, sub)
}

fn crl_of(ca: &CertificateAuthority, partition: &str, entries: &[Entry]) -> Vec<u8> {
    let url = ca.publication().unwrap().crl_url(ca.key_id(), partition);
    let request = CrlRequest {
        scope_url: &url,
        number: 1_790_000_000_000,
        this_update: NOW - 60,
        next_update: NOW + 86_400,
        entries,
    };
    crl::encode(ca, &request).unwrap()
}

struct Case {
    dir: TempDir,
    root: CertificateAuthority,
    sub: CertificateAuthority,
    leaf: Issued,
}

impl Case {
    fn new(ca: KeyAlgorithm, leaf: KeyAlgorithm) -> Self {
        let spec = TemplateSpec {
            subject: vec![
                (AttributeType::Organization, "Example Wasserwerke AG".into()),
                (AttributeType::OrganizationalUnit, "{fleet}".into()),
            ],
            sans: vec![(SanKind::Uri, "spiffe://example.com/{namespace}/{deviceId}".into())],
        };
        let context = TemplateContext {
            device_id: "pump-17",
            fleet: "pumps",
            namespace: "plant-a",
            labels: &std::collections::BTreeMap::new(),
        };
        let subject = LeafTemplate::parse(&spec).unwrap().render(&context).unwrap();
        let csr = device_csr(leaf);
        Self::issue(pki(ca, ca), &a_day(&subject, csr.public_key(), LeafUsage::Device))
    }

    fn issue((root, sub): (CertificateAuthority, CertificateAuthority), request: &LeafRequest<'_>) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            leaf: sub.issue(request, NOW).unwrap(),
            root,
            sub,
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.dir.path(), name, content)
    }

    /// OpenSSL's verdict on the leaf, with the CRL of its partition, and on the subordinate, with its own.
    fn openssl(&self, entries: &[Entry]) -> Result<String, String> {
        let crl = crl_of(&self.sub, &self.leaf.partition, entries);
        let chain = certificates_to_pem(self.sub.issuing_chain());
        self.openssl_verify(&["-purpose", "sslclient"], &self.leaf.der, &chain, &crl)?;
        let crl = crl_of(&self.root, CA_PARTITION, &[]);
        self.openssl_verify(&[], self.sub.certificate_der(), "", &crl)
    }

    fn openssl_verify(
        &self,
        purpose: &[&str],
        certificate: &CertificateDer<'_>,
        chain: &str,
        crl: &[u8],
    ) -> Result<String, String> {
        let (crl, crl_pem) = (self.file("crl.der", crl), self.file("crl.pem", ""));
        openssl(&["crl", "-inform", "DER", "-in", &crl, "-out", &crl_pem])?;
        let (time, root) = (
            NOW.to_string(),
            self.file("root.pem", certificates_to_pem(self.root.root_der())),
        );
        let (chain, target) = (
            self.file("chain.pem", chain),
            self.file("target.pem", certificates_to_pem([certificate])),
        );
        let mut args = vec![
            "verify",
            "-x509_strict",
            "-crl_check",
            "-attime",
            &time,
            "-CAfile",
            &root,
            "-CRLfile",
            &crl_pem,
        ];
        if !purpose.is_empty() {
            args.extend(["-untrusted", &chain]);
        }
        args.extend(purpose);
        args.push(&target);
        openssl(&args)
    }

    fn leaf_file(&self) -> String {
        self.file("leaf.pem", certificates_to_pem([&self.leaf.der]))
    }

    /// Go's verdict on the leaf when it is used so; `more` arguments for the verifier.
    fn go(&self, usage: &str, more: &[&str]) -> Result<String, String> {
        let time = NOW.to_string();
        let root = self.file("root.pem", certificates_to_pem(self.root.root_der()));
        let chain = self.file("chain.pem", certificates_to_pem(self.sub.issuing_chain()));
        let leaf = self.leaf_file();
        let chain = [
            "chain",
            "-usage",
            usage,
            "-time",
            &time,
            "-root",
            &root,
            "-intermediates",
            &chain,
            "-leaf",
            &leaf,
        ];
        go_verify(&[&chain[..], more].concat())
    }

    /// The same, of a client, with the CRL of the leaf's partition.
    fn go_crl(&self, entries: &[Entry]) -> Result<String, String> {
        let crl = self.file("crl.der", crl_of(&self.sub, &self.leaf.partition, entries));
        self.go("client", &["-crl", &crl])
    }

    fn webpki(&self, usage: KeyUsage, entries: &[Entry]) -> Result<(), webpki::Error> {
        let anchors = [anchor_from_trusted_cert(self.root.certificate_der())?];
        let intermediates: Vec<_> = self.sub.issuing_chain().cloned().collect();
        let crl = crl_of(&self.sub, &self.leaf.partition, entries);
        let crl = webpki::CertRevocationList::from(webpki::BorrowedCertRevocationList::from_der(&crl)?);
        let crls = [&crl];
        let revocation = webpki::RevocationOptionsBuilder::new(&crls)
            .unwrap()
            .with_depth(webpki::RevocationCheckDepth::EndEntity)
            .build();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
        webpki::EndEntityCert::try_from(&self.leaf.der)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &intermediates,
                time,
                usage,
                Some(revocation),
                None,
            )
            .map(|_| ())
    }
}

fn cases() -> impl Iterator<Item = Case> {
    // Every algorithm as CA (root and subordinate) and as leaf.
    let leaves = KeyAlgorithm::ALL.into_iter().cycle().skip(1);
    KeyAlgorithm::ALL
        .into_iter()
        .zip(leaves)
        .map(|(ca, leaf)| Case::new(ca, leaf))
}

#[test]
fn every_algorithm_is_accepted_by_openssl_webpki_go_and_zlint() {
    for case in cases() {
        let ca = case.sub.algorithm();
        case.openssl(&[]).unwrap_or_else(|e| panic!("{ca}: {e}"));
        case.go_crl(&[]).unwrap_or_else(|e| panic!("{ca}: {e}"));
        case.webpki(KeyUsage::client_auth(), &[])
            .unwrap_or_else(|e| panic!("{ca}: {e}"));
        let pems = [case.root.certificate_der(), case.sub.certificate_der(), &case.leaf.der];
        let names = ["root.pem", "sub.pem", "leaf.pem"];
        let files: Vec<_> = names
            .iter()
            .zip(pems)
            .map(|(name, der)| case.file(name, certificates_to_pem([der])))
            .collect();
        let files: Vec<_> = std::iter::once("lint")
            .chain(files.iter().map(String::as_str))
            .collect();
        go_verify(&files).unwrap_or_else(|e| panic!("{ca}: {e}"));
    }
}

#[test]
fn a_revoked_serial_is_refused_by_openssl_webpki_and_go() {
    let case = Case::new(KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256);
    let entry = Entry {
        serial: case.leaf.serial.clone(),
        revoked_at: NOW - 120,
        reason: Reason::KeyCompromise,
    };
    let entries = [entry];
    assert!(case.openssl(&entries).unwrap_err().contains("certificate revoked"));
    assert!(case.go_crl(&entries).unwrap_err().contains("revoked"));
    assert_eq!(
        case.webpki(KeyUsage::client_auth(), &entries),
        Err(webpki::Error::CertRevoked)
    );
}

#[test]
fn a_device_certificate_does_not_serve_as_a_servers() {
    let case = Case::new(KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256);
    assert!(case.webpki(KeyUsage::server_auth(), &[]).is_err());
}

#[test]
fn an_empty_crl_has_a_critical_idp_and_no_list() {
    let (_, sub) = pki(KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256);
    let dir = TempDir::new().unwrap();
    let file = write(dir.path(), "crl.der", crl_of(&sub, "2026-09", &[]));
    let text = openssl(&["crl", "-inform", "DER", "-in", &file, "-noout", "-text"]).unwrap();
    for part in [
        "X509v3 Issuing Distribution Point: critical".to_owned(),
        format!("URI:{BASE}/crl/{}/2026-09.crl", sub.key_id()),
        "No Revoked Certificates.".to_owned(),
        "X509v3 Authority Key Identifier".to_owned(),
        "X509v3 CRL Number".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is missing in {text}");
    }
    assert!(!text.contains("Only User"), "{text}");
}

#[test]
fn a_servers_certificate_is_accepted_for_its_name_only() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let sans = vec![San::dns("mqtt.example.com").unwrap(), San::ip([127, 0, 0, 1].into())];
        let subject = LeafSubject::server("mqtt.example.com", sans).unwrap();
        let case = Case::issue(
            pki(KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256),
            &a_day(&subject, key.public_key(), LeafUsage::Server),
        );
        let verify = |name| case.go("server", &["-name", name]);
        verify("mqtt.example.com").unwrap();
        verify("127.0.0.1").unwrap();
        assert!(verify("other.example.com").is_err());
        let leaf = case.leaf_file();
        go_verify(&["lint", &leaf]).unwrap();
        let text = openssl(&["x509", "-in", &leaf, "-noout", "-text"]).unwrap();
        assert_eq!(text.contains("Key Encipherment"), algorithm.is_rsa(), "{text}");
    }
}

#[test]
fn a_control_certificate_has_its_own_usage_and_no_other() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let subject = LeafSubject::common_name("~control.main").unwrap();
    let case = Case::issue(
        pki(KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519),
        &a_day(&subject, key.public_key(), LeafUsage::Control),
    );
    case.go(CONTROL_EKU, &[]).unwrap();
    assert!(case.go("client", &[]).is_err());
    go_verify(&["lint", &case.leaf_file()]).unwrap();
}

#[test]
fn control_certificates_bear_the_usage_that_devices_ask_for() {
    let arcs: Vec<String> = CONTROL_EKU_OID.iter().map(ToString::to_string).collect();
    assert_eq!(arcs.join("."), CONTROL_EKU);
}

#[test]
fn the_linter_finds_what_is_wrong() {
    let (pem, _) = openssl_ca("/CN=x", &[BC, KU, "subjectKeyIdentifier=none"]);
    let dir = TempDir::new().unwrap();
    let findings = go_verify(&["lint", &write(dir.path(), "ca.pem", pem)]).unwrap_err();
    assert!(
        findings.contains("e_ext_subject_key_identifier_missing_ca"),
        "{findings}"
    );
}
