//! OCSP before foreign judges: requests that OpenSSL and Go make, and what they say of the answers. They look at the real
//! clock, so the certificates here are of today.

use certwave_pki::{
    CaProfile, CertificateAuthority, Issued, KeyAlgorithm, LeafSubject, LeafUsage, PrivateKey, Publication,
    certificates_to_pem,
    crl::Reason,
    ocsp::{Answer, CertStatus, IssuerId, OcspRequest, OcspSigner, StatusTimes},
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::{
    ocsp::{certify, signer},
    tools::{a_day, device_csr, go_verify, openssl, today, write},
};

/// A CA with a responder and two leaves, and a directory for what the judges are shown.
struct Court {
    dir: TempDir,
    now: i64,
    ca: CertificateAuthority,
    signer: OcspSigner,
    leaves: [Issued; 2],
}

impl Court {
    fn new(algorithm: KeyAlgorithm) -> Self {
        let now = today() - 120;
        let publication = Publication::new("http://pki.example.com").unwrap().with_ocsp();
        let key = PrivateKey::generate(algorithm).unwrap();
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("Plant root"), now)
            .unwrap()
            .with_publication(publication);
        let subject = LeafSubject::common_name("pump-17").unwrap();
        let leaf = |_| {
            let csr = device_csr(KeyAlgorithm::EcdsaP256);
            ca.issue(&a_day(&subject, csr.public_key(), LeafUsage::Device), now)
                .unwrap()
        };
        let leaves = [0, 1].map(leaf);
        let key = PrivateKey::generate(algorithm).unwrap();
        let certificate = certify(&ca, key.public_key(), now).der;
        let signer = OcspSigner::new(key, certificate, ca.certificate_der()).unwrap();
        let court = Self {
            dir: TempDir::new().unwrap(),
            now,
            ca,
            signer,
            leaves,
        };
        court.file("ca.pem", certificates_to_pem([court.ca.certificate_der()]));
        for (name, leaf) in ["a.pem", "b.pem"].iter().zip(&court.leaves) {
            court.file(name, certificates_to_pem([&leaf.der]));
        }
        court
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.dir.path(), name, content)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    const fn times(&self) -> StatusTimes {
        StatusTimes {
            this_update: self.now - 60,
            next_update: self.now + 3600,
            produced_at: self.now,
        }
    }

    /// The request that `openssl ocsp` makes about these leaves, by the hash `digest`.
    fn openssl_request(&self, digest: &str, leaves: &[&str], more: &[&str]) -> Vec<u8> {
        let (out, ca) = (self.path("request.der"), self.path("ca.pem"));
        let mut args = vec!["ocsp", "-issuer", &ca, "-reqout", &out];
        let leaves: Vec<_> = leaves.iter().map(|leaf| self.path(leaf)).collect();
        for leaf in &leaves {
            args.extend([digest, "-cert", leaf]);
        }
        args.extend(more);
        openssl(&args).unwrap();
        std::fs::read(out).unwrap()
    }

    /// Answers as a responder does: reads the request, finds the issuer, says what `status` says.
    fn answer(&self, request: &[u8], status: impl Fn(&str) -> CertStatus) -> Answer {
        let request = OcspRequest::parse(request).unwrap();
        assert_eq!(request.issuer([&IssuerId::of(&self.ca)]), Some(0));
        self.signer
            .answer(&request, self.times(), |serial| status(&serial.to_string()))
            .unwrap()
    }

    /// What `openssl ocsp` says of an answer to the request that it made last.
    fn openssl(&self, answer: &[u8], digest: &str, leaves: &[&str], more: &[&str]) -> Result<String, String> {
        let (ca, response) = (self.path("ca.pem"), self.file("response.der", answer));
        let mut args = vec!["ocsp", "-issuer", &ca, "-CAfile", &ca, "-respin", &response];
        let leaves: Vec<_> = leaves.iter().map(|leaf| self.path(leaf)).collect();
        for leaf in &leaves {
            args.extend([digest, "-cert", leaf]);
        }
        args.extend(more);
        openssl(&args)
    }

    fn go(&self, answer: &[u8], leaf: &str) -> Result<String, String> {
        let response = self.file("response.der", answer);
        let (ca, leaf) = (self.path("ca.pem"), self.path(leaf));
        go_verify(&["ocsp", "-issuer", &ca, "-leaf", &leaf, "-response", &response])
    }
}

#[test]
fn every_status_is_read_by_openssl_and_go_with_either_hash() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let revoked = |reason| CertStatus::Revoked {
        at: court.now - 3600,
        reason,
    };
    let cases = [
        (CertStatus::Good, "good"),
        (revoked(Reason::Unspecified), "revoked"),
        (revoked(Reason::KeyCompromise), "revoked"),
        (revoked(Reason::CertificateHold), "revoked"),
        (CertStatus::Unknown, "unknown"),
    ];
    for digest in ["-sha1", "-sha256"] {
        let request = court.openssl_request(digest, &["a.pem"], &["-no_nonce"]);
        for (status, word) in cases {
            let answer = court.answer(&request, |serial| {
                assert_eq!(serial, court.leaves[0].serial);
                status
            });
            let text = court.openssl(&answer.der, digest, &["a.pem"], &["-no_nonce"]).unwrap();
            assert!(text.contains("Response verify OK"), "{digest} {status:?}: {text}");
            assert!(text.contains(&format!("a.pem: {word}")), "{digest} {status:?}: {text}");
            assert!(!text.contains("WARNING"), "{digest} {status:?}: {text}");
            let mut expected = vec![
                word.to_owned(),
                (court.now - 60).to_string(),
                (court.now + 3600).to_string(),
            ];
            if let CertStatus::Revoked { at, reason } = status {
                expected.extend([at.to_string(), reason.code().to_string()]);
            }
            let expected = expected.join(" ");
            assert_eq!(court.go(&answer.der, "a.pem").unwrap().trim_end(), expected, "{digest}");
        }
    }
}

#[test]
fn signers_of_every_algorithm_are_believed_by_openssl_and_go() {
    for algorithm in KeyAlgorithm::ALL {
        let court = Court::new(algorithm);
        let request = court.openssl_request("-sha256", &["a.pem"], &["-no_nonce"]);
        let answer = court.answer(&request, |_| CertStatus::Good);
        let text = court.openssl(&answer.der, "-sha256", &["a.pem"], &["-no_nonce"]);
        assert!(
            text.as_ref().is_ok_and(|text| text.contains("Response verify OK")),
            "{algorithm}: {text:?}"
        );
        // x/crypto/ocsp does not know Ed25519.
        if algorithm != KeyAlgorithm::Ed25519 {
            court
                .go(&answer.der, "a.pem")
                .unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        }
        let certificate = court.file("signer.pem", certificates_to_pem([court.signer.certificate_der()]));
        go_verify(&["lint", &certificate]).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
    }
}

#[test]
fn requests_of_gos_client_are_read_with_either_hash() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    for hash in ["sha1", "sha256"] {
        let out = court.path("go.der");
        let (ca, leaf) = (court.path("ca.pem"), court.path("b.pem"));
        go_verify(&[
            "ocsp-request",
            "-issuer",
            &ca,
            "-leaf",
            &leaf,
            "-hash",
            hash,
            "-out",
            &out,
        ])
        .unwrap();
        let request = std::fs::read(out).unwrap();
        let answer = court.answer(&request, |serial| {
            assert_eq!(serial, court.leaves[1].serial);
            CertStatus::Good
        });
        assert!(court.go(&answer.der, "b.pem").unwrap().starts_with("good"));
        assert!(
            court.go(&answer.der, "a.pem").is_err(),
            "an answer is for its certificate only"
        );
    }
}

#[test]
fn the_name_made_ahead_is_the_one_that_openssl_and_go_send() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let issuer = IssuerId::of(&court.ca);
    let serial = court.leaves[0].serial.parse().unwrap();
    for (algorithm, digest, hash) in [
        (certwave_pki::ocsp::HashAlgorithm::Sha1, "-sha1", "sha1"),
        (certwave_pki::ocsp::HashAlgorithm::Sha256, "-sha256", "sha256"),
    ] {
        let ahead = issuer.cert_id(algorithm, &serial);
        let openssl = court.openssl_request(digest, &["a.pem"], &["-no_nonce"]);
        assert_eq!(
            OcspRequest::parse(&openssl).unwrap().reusable(),
            Some(&*ahead),
            "{digest}"
        );
        let out = court.path("go.der");
        let (ca, leaf) = (court.path("ca.pem"), court.path("a.pem"));
        go_verify(&[
            "ocsp-request",
            "-issuer",
            &ca,
            "-leaf",
            &leaf,
            "-hash",
            hash,
            "-out",
            &out,
        ])
        .unwrap();
        let go = std::fs::read(out).unwrap();
        assert_eq!(OcspRequest::parse(&go).unwrap().reusable(), Some(&*ahead), "{hash}");
    }
}

#[test]
fn the_nonce_comes_back_and_another_is_noticed() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let request = court.openssl_request("-sha1", &["a.pem"], &["-nonce"]);
    assert!(OcspRequest::parse(&request).unwrap().nonce().is_some());
    let file = court.file("kept.der", &request);
    let judge = |answer: &Answer| {
        let (ca, response) = (court.path("ca.pem"), court.file("response.der", &answer.der));
        openssl(&[
            "ocsp", "-issuer", &ca, "-CAfile", &ca, "-reqin", &file, "-respin", &response,
        ])
    };
    let text = judge(&court.answer(&request, |_| CertStatus::Good)).unwrap();
    assert!(
        text.contains("Response verify OK") && !text.contains("WARNING"),
        "{text}"
    );

    let other = court.openssl_request("-sha1", &["a.pem"], &["-nonce"]);
    let verdict = judge(&court.answer(&other, |_| CertStatus::Good)).unwrap_err();
    assert!(verdict.contains("Nonce Verify error"), "{verdict}");
    let none = court.openssl_request("-sha1", &["a.pem"], &["-no_nonce"]);
    let text = judge(&court.answer(&none, |_| CertStatus::Good)).unwrap();
    assert!(text.contains("WARNING: no nonce in response"), "{text}");
}

#[test]
fn several_certificates_are_answered_at_once() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let request = court.openssl_request("-sha256", &["a.pem", "b.pem"], &["-nonce"]);
    let answer = court.answer(&request, |serial| {
        if serial == court.leaves[0].serial {
            CertStatus::Good
        } else {
            CertStatus::Revoked {
                at: court.now - 10,
                reason: Reason::Superseded,
            }
        }
    });
    let text = court
        .openssl(&answer.der, "-sha256", &["a.pem", "b.pem"], &["-no_nonce"])
        .unwrap();
    assert!(
        text.contains("a.pem: good") && text.contains("b.pem: revoked"),
        "{text}"
    );
    assert!(text.contains("Reason: superseded"), "{text}");
}

#[test]
fn a_signed_request_is_answered_like_any_other() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let subject = LeafSubject::common_name("pump-18").unwrap();
    let leaf = court
        .ca
        .issue(&a_day(&subject, key.public_key(), LeafUsage::Device), court.now)
        .unwrap();
    let certificate = court.file("requestor.pem", certificates_to_pem([&leaf.der]));
    let key = court.file("requestor.key", key.to_pkcs8_pem().expose_secret());
    let request = court.openssl_request("-sha1", &["a.pem"], &["-signer", &certificate, "-signkey", &key]);
    let answer = court.answer(&request, |_| CertStatus::Good);
    assert!(court.go(&answer.der, "a.pem").unwrap().starts_with("good"));
}

#[test]
fn an_answer_by_another_cas_responder_or_with_a_changed_byte_is_refused() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let request = court.openssl_request("-sha1", &["a.pem"], &["-no_nonce"]);
    let parsed = OcspRequest::parse(&request).unwrap();
    let other = Court::new(KeyAlgorithm::EcdsaP256);
    let foreign = signer(&other.ca, court.now)
        .answer(&parsed, court.times(), |_| CertStatus::Good)
        .unwrap();
    assert!(court.go(&foreign.der, "a.pem").is_err());
    let verdict = court.openssl(&foreign.der, "-sha1", &["a.pem"], &["-no_nonce"]);
    assert!(
        verdict
            .as_ref()
            .is_err_and(|text| text.contains("Response Verify Failure")),
        "{verdict:?}"
    );

    let mut changed = court.answer(&request, |_| CertStatus::Good).der;
    let at = changed.windows(2).position(|bytes| bytes == [0x80, 0]).unwrap();
    changed[at] = 0x82;
    assert!(court.go(&changed, "a.pem").is_err());
}

#[test]
fn openssl_reads_each_failure() {
    use certwave_pki::ocsp::Failure;
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    for (failure, word) in [
        (Failure::MalformedRequest, "malformedrequest"),
        (Failure::InternalError, "internalerror"),
        (Failure::TryLater, "trylater"),
        (Failure::Unauthorized, "unauthorized"),
    ] {
        let said = match court.openssl(&failure.to_der(), "-sha1", &["a.pem"], &[]) {
            Ok(text) | Err(text) => text,
        };
        assert!(said.contains(&format!("Responder Error: {word}")), "{said}");
    }
}

#[test]
fn the_signers_certificate_is_for_ocsp_alone_and_need_not_be_checked() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let file = court.file("signer.pem", certificates_to_pem([court.signer.certificate_der()]));
    let text = openssl(&["x509", "-in", &file, "-noout", "-text"]).unwrap();
    for part in ["OCSP No Check", "OCSP Signing", "CN = ~ocsp", "Digital Signature"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["CRL Distribution", "Authority Information", "TLS Web"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}
