//! OCSP requests as anybody may send them, and who may sign answers.

use std::sync::LazyLock;

use certwave_pki::crl::Reason;
use certwave_pki::{
    CaProfile, CertificateAuthority, IssueError, Issued, KeyAlgorithm, LeafSubject, LeafUsage, PrivateKey, Serial,
    SubjectPublicKey,
    ocsp::{
        AnswerError, CertStatus, Checked, Failure, HashAlgorithm, IssuerId, MAX_CERT_IDS, MAX_NONCE_BYTES,
        MAX_REQUEST_BYTES, OcspRequest, OcspSigner, OcspSignerError, RequestError, ResponseError, SingleStatus,
        StatusTimes, ask, check,
    },
    parse_certificate_info,
};
use proptest::prelude::*;

use crate::tools::{CpuTime, NOW, a_day, root};

static CA: LazyLock<CertificateAuthority> = LazyLock::new(|| root(KeyAlgorithm::EcdsaP256));
static ISSUER: LazyLock<IssuerId> = LazyLock::new(|| IssuerId::of(&CA));

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match content.len() {
        0..0x80 => vec![tag, length[1]],
        0x80..0x100 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [header, content.to_vec()].concat()
}

fn extension(last_arc: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let id = tlv(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, last_arc]);
    let critical = if critical { vec![1, 1, 0xff] } else { Vec::new() };
    tlv(0x30, &[id, critical, tlv(4, value)].concat())
}

fn nonce(octets: &[u8]) -> Vec<u8> {
    extension(2, false, &tlv(4, octets))
}

fn request(cert_ids: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
    let singles: Vec<_> = cert_ids.iter().map(|id| tlv(0x30, id)).collect();
    let mut tbs = tlv(0x30, &singles.concat());
    if !extensions.is_empty() {
        tbs.extend(tlv(0xa2, &tlv(0x30, &extensions.concat())));
    }
    tlv(0x30, &tlv(0x30, &tbs))
}

fn serial(n: u32) -> Serial {
    Serial::from_bytes(&n.to_be_bytes()).unwrap()
}

fn id(n: u32) -> Vec<u8> {
    ISSUER.cert_id(HashAlgorithm::Sha256, &serial(n))
}

#[test]
fn both_hashes_of_name_and_key_must_be_the_issuers() {
    let twin = |name: &str| {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        IssuerId::of(&CertificateAuthority::self_signed(key, &CaProfile::named(name), NOW).unwrap())
    };
    let namesake = twin("Plant root");
    let stranger = twin("Another");
    let public = IssuerId::from_certificate(CA.certificate_der()).unwrap();
    assert_eq!(public, *ISSUER, "the certificate is enough");
    for algorithm in HashAlgorithm::ALL {
        let der = request(&[ISSUER.cert_id(algorithm, &serial(7))], &[]);
        let parsed = OcspRequest::parse(&der).unwrap();
        assert_eq!(parsed.cert_ids()[0].algorithm, Some(algorithm));
        assert_eq!(parsed.cert_ids()[0].serial, Some(serial(7)));
        assert_eq!(
            parsed.issuer([&namesake, &*ISSUER]),
            Some(1),
            "the same name with another key is another CA"
        );
        assert_eq!(parsed.issuer([&namesake, &stranger]), None);
    }
    let mixed = request(&[id(1), stranger.cert_id(HashAlgorithm::Sha256, &serial(1))], &[]);
    assert_eq!(OcspRequest::parse(&mixed).unwrap().issuer([&*ISSUER, &stranger]), None);
    // A hash that is not known names nobody.
    let mut md5 = ISSUER.cert_id(HashAlgorithm::Sha1, &serial(7));
    md5[8] ^= 1;
    let md5 = request(&[md5], &[]);
    assert_eq!(OcspRequest::parse(&md5).unwrap().issuer([&*ISSUER]), None);
}

#[test]
fn nonces_of_1_to_128_octets_are_taken_and_no_others() {
    for length in [1, 16, 32, MAX_NONCE_BYTES] {
        let octets = vec![7; length];
        let der = request(&[id(1)], &[nonce(&octets)]);
        assert_eq!(OcspRequest::parse(&der).unwrap().nonce(), Some(octets.as_slice()));
    }
    for length in [0, MAX_NONCE_BYTES + 1, 4096] {
        let der = request(&[id(1)], &[nonce(&vec![7; length])]);
        let error = OcspRequest::parse(&der).unwrap_err();
        assert_eq!(error, RequestError::Nonce(length));
        assert_eq!(error.failure(), Failure::MalformedRequest);
    }
    let refused = |extensions: &[Vec<u8>]| OcspRequest::parse(&request(&[id(1)], extensions)).unwrap_err();
    assert_eq!(
        refused(&[nonce(&[1]), nonce(&[2])]),
        RequestError::Malformed("two nonces")
    );
    assert_eq!(refused(&[extension(2, false, &[1, 2, 3])]).category(), "malformed");
}

#[test]
fn critical_extensions_that_are_not_known_are_refused_and_others_passed_over() {
    let harmless = request(&[id(1)], &[extension(4, false, &[0x30, 0])]);
    OcspRequest::parse(&harmless).unwrap();
    let critical = extension(4, true, &[0x30, 0]);
    let error = OcspRequest::parse(&request(&[id(1)], std::slice::from_ref(&critical))).unwrap_err();
    assert_eq!(error, RequestError::CriticalExtension);
    // The same in the extensions of one certificate.
    let single = [id(1), tlv(0xa0, &tlv(0x30, &critical))].concat();
    let error = OcspRequest::parse(&request(&[single], &[])).unwrap_err();
    assert_eq!(error, RequestError::CriticalExtension);
}

#[test]
fn what_costs_too_much_is_refused_early() {
    let many = |count: usize| (1..).take(count).map(id).collect::<Vec<_>>();
    assert_eq!(
        OcspRequest::parse(&request(&many(MAX_CERT_IDS), &[]))
            .unwrap()
            .cert_ids()
            .len(),
        MAX_CERT_IDS
    );
    let refused = |der: &[u8]| OcspRequest::parse(der).unwrap_err();
    assert_eq!(refused(&request(&many(MAX_CERT_IDS + 1), &[])), RequestError::Count);
    assert_eq!(refused(&request(&[], &[])), RequestError::Count);
    let large = vec![0x30; MAX_REQUEST_BYTES + 1];
    assert_eq!(refused(&large), RequestError::TooLarge(large.len()));
}

#[test]
fn only_a_lone_certificate_without_nonce_has_an_answer_for_everybody() {
    let reusable = |ids: &[Vec<u8>], extensions: &[Vec<u8>]| {
        let der = request(ids, extensions);
        OcspRequest::parse(&der).unwrap().reusable().map(<[u8]>::to_vec)
    };
    assert_eq!(
        reusable(&[id(5)], &[]),
        Some(id(5)),
        "the name that is made ahead of any request"
    );
    assert_eq!(reusable(&[id(5)], &[nonce(&[1])]), None);
    assert_eq!(reusable(&[id(5), id(6)], &[]), None);
}

#[test]
fn a_serial_number_that_no_certificate_has_is_unknown_without_being_looked_up() {
    let signer = signer(&CA, NOW);
    for odd in [&[0][..], &[0x80], &[1; 21]] {
        let mut content = id(0x41);
        let header = 2;
        let serial_at = content.len() - 3;
        content = [&content[header..serial_at], &tlv(2, odd)].concat();
        let der = request(&[tlv(0x30, &content)], &[]);
        let parsed = OcspRequest::parse(&der).unwrap();
        assert_eq!(parsed.issuer([&*ISSUER]), Some(0));
        let mut asked = false;
        let answer = signer.answer(&parsed, times(NOW), |_| {
            asked = true;
            CertStatus::Good
        });
        assert!(!asked);
        assert!(
            answer.unwrap().der.windows(2).any(|bytes| bytes == [0x82, 0]),
            "unknown"
        );
    }
}

/// An OCSP signer of this CA, for a day.
pub(crate) fn signer(ca: &CertificateAuthority, now: i64) -> OcspSigner {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issued = certify(ca, key.public_key(), now);
    OcspSigner::new(key, issued.der, ca.certificate_der()).unwrap()
}

pub(crate) fn certify(ca: &CertificateAuthority, key: &SubjectPublicKey, now: i64) -> Issued {
    let subject = LeafSubject::common_name("~ocsp").unwrap();
    ca.issue(&a_day(&subject, key, LeafUsage::OcspSigner), now).unwrap()
}

pub(crate) const fn times(now: i64) -> StatusTimes {
    StatusTimes {
        this_update: now - 60,
        next_update: now + 3600,
        produced_at: now,
    }
}

#[test]
fn a_signer_needs_its_own_certificate_for_ocsp_by_the_very_ca() {
    let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let right = key();
    let issued = certify(&CA, right.public_key(), NOW);
    let refused = |key: PrivateKey, certificate: &Issued, ca: &CertificateAuthority| {
        OcspSigner::new(key, certificate.der.clone(), ca.certificate_der()).unwrap_err()
    };
    assert_eq!(refused(key(), &issued, &CA), OcspSignerError::OtherKey);
    let other = root(KeyAlgorithm::EcdsaP256);
    assert_eq!(refused(right, &issued, &other), OcspSignerError::OtherIssuer);
    let device = key();
    let subject = LeafSubject::common_name("pump-17").unwrap();
    let leaf = CA
        .issue(&a_day(&subject, device.public_key(), LeafUsage::Device), NOW)
        .unwrap();
    // Nor is a device's name one for such a certificate.
    let request = a_day(&subject, device.public_key(), LeafUsage::OcspSigner);
    assert!(matches!(CA.issue(&request, NOW), Err(IssueError::WrongName { .. })));
    assert_eq!(refused(device, &leaf, &CA), OcspSignerError::NoUsage);
}

#[test]
fn answers_are_signed_only_while_somebody_would_believe_them() {
    let signer = signer(&CA, NOW);
    let der = request(&[id(1)], &[]);
    let parsed = OcspRequest::parse(&der).unwrap();
    let at = |times| signer.answer(&parsed, times, |_| CertStatus::Good);
    let answer = at(times(NOW)).unwrap();
    assert!(answer.is_current(NOW) && !answer.is_current(NOW + 3600) && !answer.is_current(NOW - 61));

    // The last answers live no longer than the signer does.
    let end = parse_certificate_info(signer.certificate_der()).unwrap().not_after;
    assert_eq!((end, signer.not_after()), (NOW + 86_400, NOW + 86_400));
    assert_eq!(at(times(end - 10)).unwrap().times.next_update, end);
    for now in [end, signer.not_before() - 1] {
        assert!(
            matches!(at(times(now)), Err(AnswerError::SignerNotValid { .. })),
            "{now}"
        );
    }
    for (this_update, next_update) in [(NOW + 1, NOW + 60), (NOW - 60, NOW)] {
        let wrong = StatusTimes {
            this_update,
            next_update,
            produced_at: NOW,
        };
        assert_eq!(at(wrong), Err(AnswerError::NotCurrent));
    }
}

#[test]
fn an_answer_is_believed_about_its_certificate_by_its_ca_while_it_holds() {
    let signer = signer(&CA, NOW);
    let statuses = [
        CertStatus::Good,
        CertStatus::Unknown,
        CertStatus::Revoked {
            at: NOW - 60,
            reason: Reason::KeyCompromise,
        },
        CertStatus::Revoked {
            at: NOW - 60,
            reason: Reason::Unspecified,
        },
    ];
    let ids: Vec<_> = (1..).take(statuses.len()).map(id).collect();
    let singles: Vec<_> = ids
        .iter()
        .zip(statuses)
        .map(|(cert_id, status)| SingleStatus { cert_id, status })
        .collect();
    let answer = signer.sign(&singles, Some(&[7; 32]), times(NOW)).unwrap();
    let ca = CA.certificate_der();
    for (cert_id, status) in ids.iter().zip(statuses) {
        let next_update = answer.times.next_update;
        assert_eq!(
            check(&answer.der, ca, cert_id, NOW),
            Ok(Checked { status, next_update })
        );
        assert_eq!(
            check(&answer.der, ca, cert_id, next_update),
            Err(ResponseError::NotCurrent {
                this_update: answer.times.this_update,
                next_update
            })
        );
    }
    assert_eq!(
        check(&answer.der, ca, &id(99), NOW),
        Err(ResponseError::OtherCertificate)
    );
    let other = root(KeyAlgorithm::EcdsaP256);
    let by_another = check(&answer.der, other.certificate_der(), &ids[0], NOW);
    assert!(matches!(by_another, Err(ResponseError::Foreign(_))), "{by_another:?}");
    for (failure, word) in [
        (Failure::TryLater, "tryLater"),
        (Failure::Unauthorized, "unauthorized"),
        (Failure::MalformedRequest, "malformedRequest"),
        (Failure::InternalError, "internalError"),
    ] {
        assert_eq!(
            check(&failure.to_der(), ca, &ids[0], NOW),
            Err(ResponseError::Refused(word))
        );
    }
    let changed = (0..answer.der.len()).filter(|at| {
        let mut der = answer.der.clone();
        der[*at] ^= 1;
        check(&der, ca, &ids[0], NOW).is_ok()
    });
    assert_eq!(changed.count(), 0, "an answer with a changed byte is believed");
}

#[test]
fn what_is_asked_is_read_as_it_was_meant() {
    for algorithm in HashAlgorithm::ALL {
        let cert_id = ISSUER.cert_id(algorithm, &serial(7));
        let der = ask(&cert_id);
        assert_eq!(der, request(std::slice::from_ref(&cert_id), &[]));
        assert_eq!(OcspRequest::parse(&der).unwrap().reusable(), Some(cert_id.as_slice()));
    }
}

#[test]
fn failures_have_the_numbers_of_the_standard() {
    let codes = [
        (Failure::MalformedRequest, 1),
        (Failure::InternalError, 2),
        (Failure::TryLater, 3),
        (Failure::Unauthorized, 6),
    ];
    for (failure, code) in codes {
        assert_eq!(failure.to_der(), [0x30, 3, 0x0a, 1, code]);
    }
}

proptest! {
    #[test]
    fn what_is_asked_is_what_is_read(
        asked in proptest::collection::vec((1_u32.., any::<bool>()), 1..=MAX_CERT_IDS),
        octets in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=MAX_NONCE_BYTES)),
    ) {
        let ids: Vec<_> = asked
            .iter()
            .map(|(n, sha1)| ISSUER.cert_id(HashAlgorithm::ALL[usize::from(!sha1)], &serial(*n)))
            .collect();
        let extensions: Vec<_> = octets.iter().map(|octets| nonce(octets)).collect();
        let der = request(&ids, &extensions);
        let parsed = OcspRequest::parse(&der).unwrap();
        prop_assert_eq!(parsed.nonce(), octets.as_deref());
        prop_assert_eq!(parsed.issuer([&*ISSUER]), Some(0));
        let read: Vec<_> = parsed.cert_ids().iter().map(|id| (id.der.to_vec(), id.serial)).collect();
        let sent: Vec<_> = ids.into_iter().zip(asked.iter().map(|(n, _)| Some(serial(*n)))).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn random_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(OcspRequest::parse(&bytes).is_err());
    }

    #[test]
    fn changed_and_cut_requests_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut der = request(&[id(1), id(2)], &[nonce(&[7; 32])]);
        prop_assert!(OcspRequest::parse(&der[..cut.index(der.len())]).is_err());
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Ok(parsed) = OcspRequest::parse(&der) {
            prop_assert!((1..=MAX_CERT_IDS).contains(&parsed.cert_ids().len()));
            prop_assert!(parsed.nonce().is_none_or(|nonce| (1..=MAX_NONCE_BYTES).contains(&nonce.len())));
        }
    }
}

/// `cargo test -p certwave-pki --release --test it -- --ignored --nocapture --exact ocsp::bench_answers_of_one_core`
#[test]
#[ignore = "a measurement, not a check"]
fn bench_answers_of_one_core() {
    const COUNT: u32 = 200_000;
    let signer = signer(&CA, NOW);
    let der = request(&[id(1)], &[nonce(&[7; 32])]);
    let per_request = |work: &dyn Fn()| {
        let started = CpuTime::start();
        (0..COUNT).for_each(|_| work());
        started.elapsed() / COUNT
    };
    let read = per_request(&|| assert!(OcspRequest::parse(&der).unwrap().issuer([&*ISSUER]).is_some()));
    let answered = per_request(&|| {
        let request = OcspRequest::parse(&der).unwrap();
        signer.answer(&request, times(NOW), |_| CertStatus::Good).unwrap();
    });
    println!("ocsp.signed read {read:?}, answered {answered:?} CPU for each request");
}
