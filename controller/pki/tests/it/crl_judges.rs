//! CRLs before foreign judges: OpenSSL with complete and delta CRLs, Go and webpki; and CRLs of OpenSSL's before us.

use std::time::Duration;

use certwave_pki::{
    CertificateAuthority, Issued, KeyAlgorithm, Publication, Serial, certificates_to_pem,
    crl::{self, Crl, CrlEncoder, CrlHead, CrlKind, Listed, Mark, Reason},
};
use rustls_pki_types::UnixTime;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use webpki::anchor_from_trusted_cert;

use crate::tools::{DAY, NOW, device_csr, go_verify, issue, openssl, root, today, write};

const DELTA_URL: &str = "http://pki.example.com/delta.crl";

/// A CA with a leaf, and a directory for what the judges are shown.
struct Court {
    dir: TempDir,
    ca: CertificateAuthority,
    leaf: Issued,
}

impl Court {
    fn new() -> Self {
        let publication = Publication::new("http://pki.example.com").unwrap();
        let ca = root(KeyAlgorithm::EcdsaP256).with_publication(publication);
        let leaf = issue(&ca, &device_csr(KeyAlgorithm::EcdsaP256), DAY);
        let court = Self {
            dir: TempDir::new().unwrap(),
            ca,
            leaf,
        };
        court.file("ca.pem", certificates_to_pem([court.ca.certificate_der()]));
        court.file("leaf.pem", certificates_to_pem([&court.leaf.der]));
        court
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.dir.path(), name, content)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A CRL of the leaf's partition.
    fn crl(&self, number: u64, kind: CrlKind<'_>, entries: &[Listed]) -> Vec<u8> {
        let publication = self.ca.publication().unwrap();
        let url = publication.crl_url(self.ca.key_id(), &self.leaf.partition);
        self.crl_of(Some(&url), number, kind, entries)
    }

    fn crl_of(&self, scope_url: Option<&str>, number: u64, kind: CrlKind<'_>, entries: &[Listed]) -> Vec<u8> {
        let head = CrlHead {
            scope_url,
            number,
            this_update: NOW - 60,
            next_update: NOW + 86_400,
            kind,
        };
        let mut encoder = CrlEncoder::new(&self.ca, &head, entries.len()).unwrap();
        for entry in entries {
            encoder.push(entry).unwrap();
        }
        encoder.sign().unwrap()
    }

    fn leaf_is(&self, mark: Mark) -> Listed {
        Listed {
            serial: self.leaf.serial.parse().unwrap(),
            at: NOW - 90,
            mark,
            invalid_since: None,
        }
    }

    /// OpenSSL's verdict on the leaf with these CRLs.
    fn openssl(&self, crls: &[&[u8]], more: &[&str]) -> Result<String, String> {
        let pem: String = crls.iter().map(|der| crl::to_pem(der)).collect();
        let (time, crls) = (NOW.to_string(), self.file("crls.pem", pem));
        let (ca, leaf) = (self.path("ca.pem"), self.path("leaf.pem"));
        let fixed = [
            "verify",
            "-x509_strict",
            "-crl_check",
            "-attime",
            &time,
            "-CAfile",
            &ca,
            "-CRLfile",
            &crls,
        ];
        openssl(&[&fixed[..], more, &[&leaf]].concat())
    }

    fn webpki(&self, crl: &[u8]) -> Result<(), webpki::Error> {
        let anchors = [anchor_from_trusted_cert(self.ca.certificate_der())?];
        let crl = webpki::CertRevocationList::from(webpki::BorrowedCertRevocationList::from_der(crl)?);
        let crls = [&crl];
        let time = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
        let revocation = webpki::RevocationOptionsBuilder::new(&crls)
            .unwrap()
            .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
            .build();
        webpki::EndEntityCert::try_from(&self.leaf.der)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &[],
                time,
                webpki::KeyUsage::client_auth(),
                Some(revocation),
                None,
            )
            .map(|_| ())
    }
}

const COMPLETE: CrlKind<'_> = CrlKind::Complete { freshest: None };

#[test]
fn every_reason_revokes_before_openssl_and_webpki_and_go_reads_its_code() {
    let court = Court::new();
    for reason in Reason::ALL {
        let der = court.crl(5, COMPLETE, &[court.leaf_is(Mark::Revoked(reason))]);
        let verdict = court.openssl(&[&der], &[]).unwrap_err();
        assert!(verdict.contains("certificate revoked"), "{reason:?}: {verdict}");
        assert_eq!(court.webpki(&der), Err(webpki::Error::CertRevoked), "{reason:?}");
        let file = court.file("crl.der", &der);
        let text = go_verify(&["crl", "-issuer", &court.path("ca.pem"), "-crl", &file]).unwrap();
        let entry = format!("{} {} {}\n", court.leaf.serial, NOW - 90, reason.code());
        assert!(text.ends_with(&entry), "{reason:?}: {text}");
    }
    let other = court.crl(6, COMPLETE, &[]);
    court.openssl(&[&other], &[]).unwrap();
    court.webpki(&other).unwrap();
}

#[test]
fn a_crl_of_everything_covers_the_root_too() {
    let court = Court::new();
    // OpenSSL looks at the root as well, which has no CDP: the CRL of a partition says nothing of it.
    let partition = court.crl(5, COMPLETE, &[]);
    let verdict = court.openssl(&[&partition], &["-crl_check_all"]).unwrap_err();
    assert!(verdict.contains("different CRL scope"), "{verdict}");
    let whole = court.crl_of(None, 5, COMPLETE, &[]);
    court.openssl(&[&whole], &["-crl_check_all"]).unwrap();
    court.webpki(&whole).unwrap();
    let revoked = court.leaf_is(Mark::Revoked(Reason::Superseded));
    let whole = court.crl_of(None, 6, COMPLETE, &[revoked]);
    let verdict = court.openssl(&[&whole], &["-crl_check_all"]).unwrap_err();
    assert!(verdict.contains("certificate revoked"), "{verdict}");
    assert_eq!(court.webpki(&whole), Err(webpki::Error::CertRevoked));
}

#[test]
fn go_reads_every_entry_of_a_long_list() {
    let court = Court::new();
    let serial = |n: u32| {
        let width = usize::try_from(n % 20).unwrap();
        Serial::from_bytes(&[&vec![0xc1; width.min(16)][..], &n.to_be_bytes()].concat()).unwrap()
    };
    let entries: Vec<_> = (1..5000)
        .map(|n| Listed {
            serial: serial(n),
            at: NOW - i64::from(n) * 1000,
            mark: Mark::Revoked(Reason::ALL[n as usize % 8]),
            invalid_since: None,
        })
        .collect();
    let file = court.file("crl.der", court.crl(u64::MAX, COMPLETE, &entries));
    let text = go_verify(&["crl", "-issuer", &court.path("ca.pem"), "-crl", &file]).unwrap();
    let mut lines = text.lines();
    let head = format!("{} {} {}", u64::MAX, NOW - 60, NOW + 86_400);
    assert_eq!(lines.next(), Some(head.as_str()));
    for (line, entry) in lines.by_ref().zip(&entries) {
        let Mark::Revoked(reason) = entry.mark else {
            unreachable!("only revoked ones were made")
        };
        // Go shows no leading zeros.
        let serial = entry.serial.to_string();
        let expected = format!("{} {} {}", serial.trim_start_matches('0'), entry.at, reason.code());
        assert_eq!(line, expected);
    }
    assert_eq!(text.lines().count(), entries.len() + 1);
}

#[test]
fn openssl_shows_since_when_a_key_may_have_been_misused() {
    let court = Court::new();
    let since = NOW - 86_400;
    for reason in [Reason::Unspecified, Reason::KeyCompromise] {
        let entry = Listed {
            invalid_since: Some(since),
            ..court.leaf_is(Mark::Revoked(reason))
        };
        let der = court.crl(5, COMPLETE, &[entry]);
        let file = court.file("crl.der", &der);
        let text = openssl(&["crl", "-inform", "DER", "-in", &file, "-noout", "-text"]).unwrap();
        assert!(text.contains("Invalidity Date"), "{text}");
        assert!(text.contains("Sep 20 14:13:20 2026 GMT"), "{text}");
        assert!(court.openssl(&[&der], &[]).unwrap_err().contains("certificate revoked"));
        assert_eq!(court.webpki(&der), Err(webpki::Error::CertRevoked));
        assert_eq!(Crl::parse(&der).unwrap().entries().collect::<Vec<_>>(), [entry]);
    }
}

#[test]
fn the_linter_finds_what_is_wrong_with_a_list() {
    let court = Court::new();
    let late = Listed {
        at: NOW + 1,
        ..court.leaf_is(Mark::Revoked(Reason::KeyCompromise))
    };
    let file = court.file("crl.der", court.crl(5, COMPLETE, &[late]));
    let findings = go_verify(&["crl", "-issuer", &court.path("ca.pem"), "-crl", &file]).unwrap_err();
    assert!(findings.contains("1 findings"), "{findings}");
}

#[test]
fn a_delta_revokes_and_releases_before_openssl() {
    let court = Court::new();
    let freshest = CrlKind::Complete {
        freshest: Some(DELTA_URL),
    };
    let held = court.leaf_is(Mark::Revoked(Reason::CertificateHold));
    let deltas = ["-extended_crl", "-use_deltas"];
    let delta = |entry: Listed| court.crl(11, CrlKind::Delta { base: 10 }, &[entry]);

    let base = court.crl(10, freshest, &[]);
    court.openssl(&[&base], &[]).unwrap();
    let verdict = court.openssl(&[&base, &delta(held)], &deltas).unwrap_err();
    assert!(verdict.contains("certificate revoked"), "{verdict}");

    let base = court.crl(10, freshest, &[held]);
    assert!(court.openssl(&[&base], &[]).is_err());
    let released = delta(court.leaf_is(Mark::Removed));
    court.openssl(&[&base, &released], &deltas).unwrap();
    // webpki takes no deltas: it must not take one for the whole.
    assert!(court.webpki(&released).is_err());
}

#[test]
fn openssl_shows_what_a_delta_is_to_and_where_deltas_are() {
    let court = Court::new();
    let show = |der: Vec<u8>| {
        let file = court.file("crl.der", der);
        openssl(&["crl", "-inform", "DER", "-in", &file, "-noout", "-text"]).unwrap()
    };
    let text = show(court.crl(11, CrlKind::Delta { base: 10 }, &[court.leaf_is(Mark::Removed)]));
    for part in [
        "X509v3 Delta CRL Indicator: critical",
        "X509v3 Issuing Distribution Point: critical",
        "Remove From CRL",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let freshest = CrlKind::Complete {
        freshest: Some(DELTA_URL),
    };
    let text = show(court.crl(11, freshest, &[]));
    let compact: String = text.split_whitespace().collect();
    assert!(
        compact.contains("X509v3FreshestCRL:FullName:URI:http://pki.example.com/delta.crl"),
        "{text}"
    );
    assert!(!text.contains("Delta CRL Indicator"), "{text}");
}

#[test]
fn a_crl_of_openssl_is_read_and_one_that_covers_less_is_refused() {
    let court = Court::new();
    let key = certwave_pki::PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let key_file = court.file("other.key", key.to_pkcs8_pem().expose_secret());
    let ca = CertificateAuthority::self_signed(key, &certwave_pki::CaProfile::named("Other"), today()).unwrap();
    let ca_file = court.file("other.pem", certificates_to_pem([ca.certificate_der()]));
    court.file(
        "index.txt",
        "R\t360101000000Z\t260102030405Z,keyCompromise\t0C01\tunknown\t/CN=a\n\
         R\t360101000000Z\t260102030406Z\tFF02\tunknown\t/CN=b\n",
    );
    court.file("number", "1F");
    let generate = |restriction: &str| {
        let config = format!(
            "[ca]\ndefault_ca=x\n[x]\ndatabase={index}\ncrlnumber={number}\ndefault_md=sha256\ndefault_crl_days=1\n\
             crl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\nissuingDistributionPoint=critical,@i\n\
             [i]\nfullname=URI:http://pki.example.com/x.crl\n{restriction}\n",
            index = court.path("index.txt"),
            number = court.path("number"),
        );
        let config = court.file("ca.cnf", config);
        let (pem, der) = (court.path("other.crl.pem"), court.path("other.crl"));
        openssl(&[
            "ca", "-config", &config, "-gencrl", "-keyfile", &key_file, "-cert", &ca_file, "-out", &pem,
        ])
        .unwrap();
        openssl(&["crl", "-in", &pem, "-outform", "DER", "-out", &der]).unwrap();
        std::fs::read(der).unwrap()
    };
    let der = generate("");
    let crl = Crl::parse(&der).unwrap();
    crl.verify(ca.certificate_der()).unwrap();
    assert_eq!((crl.number(), crl.len(), crl.base()), (0x1f, 2, None));
    assert_eq!(crl.scope_url(), Some("http://pki.example.com/x.crl"));
    assert_eq!(crl.next_update() - crl.this_update(), 86_400);
    let entries: Vec<_> = crl.entries().map(|e| (e.serial.to_string(), e.at, e.mark)).collect();
    let expected = [
        ("0c01".to_owned(), 1_767_323_045, Mark::Revoked(Reason::KeyCompromise)),
        ("ff02".to_owned(), 1_767_323_046, Mark::Revoked(Reason::Unspecified)),
    ];
    assert_eq!(entries, expected);
    assert_eq!(
        Crl::parse(&generate("onlyuser=TRUE")).unwrap_err().category(),
        "unsupported"
    );
}
