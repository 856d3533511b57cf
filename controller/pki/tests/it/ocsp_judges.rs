//! OCSP before foreign judges: requests that OpenSSL and Go make, and what they say of the answers.

use certwave_pki::{
    CaProfile, KeyAlgorithm, LeafSubject, LeafUsage, PrivateKey, certificates_to_pem,
    crl::Reason,
    ocsp::{Answer, AnswerError, CertStatus, Failure, HashAlgorithm, IssuerId, OcspRequest, SingleStatus},
};
use secrecy::ExposeSecret;

use crate::{
    ocsp::signer,
    ocsp_court::Court,
    tools::{a_day, device_csr, go_verify, openssl},
};

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
        (HashAlgorithm::Sha1, "-sha1", "sha1"),
        (HashAlgorithm::Sha256, "-sha256", "sha256"),
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
    let other = signer(&other.ca, court.now);
    let refused = other.answer(&parsed, court.times(), |_| CertStatus::Good).unwrap_err();
    assert_eq!(refused, AnswerError::OtherIssuer);
    assert_eq!(refused.failure(), Failure::Unauthorized);
    let single = SingleStatus {
        cert_id: parsed.cert_ids()[0].der,
        status: CertStatus::Good,
    };
    let foreign = other.sign(&[single], None, court.times()).unwrap();
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
    // id-pkix-ocsp-nocheck, not critical, with the value NULL (RFC 6960, 4.2.2.2.1).
    let no_check = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 5, 4, 2, 5, 0];
    let der = court.signer.certificate_der();
    assert!(der.windows(no_check.len()).any(|bytes| bytes == no_check));
    for part in ["CRL Distribution", "Authority Information", "TLS Web"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_subordinates_responder_is_believed_by_openssl() {
    let court = Court::new(KeyAlgorithm::EcdsaP256);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let sub = court
        .ca
        .subordinate(key, &CaProfile::named("Plant devices"), court.now)
        .unwrap();
    let subject = LeafSubject::common_name("pump-17").unwrap();
    let csr = device_csr(KeyAlgorithm::EcdsaP256);
    let leaf = sub
        .issue(&a_day(&subject, csr.public_key(), LeafUsage::Device), court.now)
        .unwrap();
    let (root, issuer) = (
        court.path("ca.pem"),
        court.file("sub.pem", certificates_to_pem([sub.certificate_der()])),
    );
    let leaf = court.file("leaf.pem", certificates_to_pem([&leaf.der]));
    let asked = court.path("sub.der");
    openssl(&[
        "ocsp",
        "-issuer",
        &issuer,
        "-cert",
        &leaf,
        "-no_nonce",
        "-reqout",
        &asked,
    ])
    .unwrap();
    let asked = std::fs::read(asked).unwrap();
    let answer = signer(&sub, court.now)
        .answer(&OcspRequest::parse(&asked).unwrap(), court.times(), |_| {
            CertStatus::Good
        })
        .unwrap();
    let response = court.file("response.der", &answer.der);
    let text = openssl(&[
        "ocsp",
        "-issuer",
        &issuer,
        "-cert",
        &leaf,
        "-no_nonce",
        "-CAfile",
        &root,
        "-verify_other",
        &issuer,
        "-respin",
        &response,
    ])
    .unwrap();
    assert!(
        text.contains("Response verify OK") && text.contains("leaf.pem: good"),
        "{text}"
    );
}
