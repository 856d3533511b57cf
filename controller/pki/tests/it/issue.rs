//! Leaves: validity, serials, names, publication; and a bench to run by hand.

use std::{collections::HashSet, sync::LazyLock, time::Instant};

use certwave_pki::{
    CA_PARTITION, CaError, CaProfile, CertificateAuthority, Csr, CsrPolicy, IssueError, KeyAlgorithm, LeafRequest,
    LeafSubject, LeafUsage, PrivateKey, Publication, create_leaf_csr, parse_certificate_info, partition_of,
};

use crate::tools::{DAY, NOW, a_day, device_csr, issue, root};

#[test]
fn what_is_recorded_is_what_the_certificate_says() {
    for algorithm in KeyAlgorithm::ALL {
        let csr = device_csr(algorithm);
        let issued = issue(&root(KeyAlgorithm::EcdsaP256), &csr, DAY);
        let info = parse_certificate_info(&issued.der).unwrap();
        assert_eq!(
            info.common_name.as_deref(),
            Some("pump-17"),
            "the subject never comes from the CSR"
        );
        assert_eq!((info.serial, info.sha256), (issued.serial, issued.sha256));
        assert_eq!(info.spki_sha256, issued.spki_sha256);
        assert_eq!(info.spki_sha256, csr.public_key().spki_sha256_hex());
        assert_eq!((info.not_before, info.not_after), (NOW - 3600, NOW + 86_400));
        assert_eq!((issued.not_before, issued.not_after), (NOW - 3600, NOW + 86_400));
        assert_eq!(info.key_id, csr.public_key().key_id());
        assert!(!info.is_ca);
    }
}

#[test]
fn validity_is_cut_to_the_ca_and_to_those_above() {
    let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let short = CaProfile {
        validity: 10 * DAY,
        ..CaProfile::named("short root")
    };
    let root = CertificateAuthority::self_signed(key(), &short, NOW).unwrap();
    let sub = root
        .subordinate(
            key(),
            &CaProfile {
                validity: 100 * DAY,
                ..CaProfile::named("sub")
            },
            NOW,
        )
        .unwrap();
    assert_eq!(sub.certificate_not_after(), root.not_after());
    let issued = issue(&sub, &device_csr(KeyAlgorithm::EcdsaP256), 365 * DAY);
    assert_eq!(issued.not_after, NOW + 10 * 86_400);
    assert_eq!(issued.not_before, NOW - 3600);
}

#[test]
fn backdating_does_not_reach_before_the_ca() {
    let ca = root(KeyAlgorithm::EcdsaP256);
    let csr = device_csr(KeyAlgorithm::EcdsaP256);
    let subject = LeafSubject::common_name("pump-17").unwrap();
    let request = LeafRequest {
        backdate: 30 * DAY,
        ..a_day(&subject, csr.public_key(), LeafUsage::Device)
    };
    assert_eq!(ca.issue(&request, NOW).unwrap().not_before, ca.not_before());
    let too_early = ca.not_before() - 1;
    assert_eq!(
        ca.issue(&request, too_early),
        Err(IssueError::CaNotYetValid(ca.not_before()))
    );
    assert_eq!(
        ca.issue(&request, ca.not_after()),
        Err(IssueError::CaExpired(ca.not_after()))
    );
    let nothing = LeafRequest {
        validity: std::time::Duration::ZERO,
        ..request
    };
    assert_eq!(ca.issue(&nothing, NOW), Err(IssueError::NoValidity));
    for extreme in [i64::MIN, i64::MAX] {
        assert!(ca.issue(&request, extreme).is_err());
    }
}

#[test]
fn serials_are_unique_positive_and_of_one_width() {
    let ca = root(KeyAlgorithm::Ed25519);
    let csr = device_csr(KeyAlgorithm::Ed25519);
    let serials: HashSet<_> = (0..500).map(|_| issue(&ca, &csr, DAY).serial).collect();
    assert_eq!(serials.len(), 500);
    for serial in serials {
        assert_eq!(serial.len(), 34);
        assert!(matches!(serial.as_bytes()[0], b'4'..=b'7'), "{serial}");
    }
}

#[test]
fn names_of_the_system_and_of_devices_do_not_mix() {
    let ca = root(KeyAlgorithm::EcdsaP256);
    let csr = device_csr(KeyAlgorithm::EcdsaP256);
    let attempt = |name: &str, usage| {
        let subject = LeafSubject::common_name(name).unwrap();
        ca.issue(&a_day(&subject, csr.public_key(), usage), NOW)
    };
    for (name, usage) in [
        ("~controller", LeafUsage::Device),
        ("~claim.a", LeafUsage::Device),
        ("pump+", LeafUsage::Device),
        ("pump/#", LeafUsage::Device),
        ("-pump", LeafUsage::Device),
        ("pump-17", LeafUsage::Claim),
        ("~claim.", LeafUsage::Claim),
        ("~controller", LeafUsage::Claim),
        ("~control.a", LeafUsage::Controller),
        ("~controller", LeafUsage::Control),
    ] {
        let wrong = IssueError::WrongName {
            name: name.to_owned(),
            usage,
        };
        assert_eq!(attempt(name, usage), Err(wrong));
    }
    assert_eq!(attempt("mqtt", LeafUsage::Server), Err(IssueError::NoServerName));
    for (name, usage) in [
        ("pump-17", LeafUsage::Device),
        ("~claim.line-1", LeafUsage::Claim),
        ("~controller", LeafUsage::Controller),
        ("~control.main", LeafUsage::Control),
    ] {
        attempt(name, usage).unwrap();
    }
}

#[test]
fn the_cas_own_key_is_not_certified() {
    let ca = root(KeyAlgorithm::EcdsaP256);
    let subject = LeafSubject::common_name("pump-17").unwrap();
    let request = a_day(&subject, ca.public_key(), LeafUsage::Device);
    assert_eq!(ca.issue(&request, NOW), Err(IssueError::KeyOfCa));
    assert_eq!(
        ca.sign_subordinate(ca.public_key(), &CaProfile::named("x"), NOW),
        Err(CaError::SameAsIssuer)
    );
}

#[test]
fn a_path_length_is_kept_and_a_subordinate_has_a_name_of_its_own() {
    let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CaProfile {
        path_len: Some(1),
        ..CaProfile::named("root")
    };
    let root = CertificateAuthority::self_signed(key(), &profile, NOW).unwrap();
    let wanted = CaProfile {
        path_len: Some(1),
        ..CaProfile::named("sub")
    };
    assert_eq!(
        root.subordinate(key(), &wanted, NOW).unwrap_err(),
        CaError::PathLen { allowed: 1 }
    );
    let sub = root.subordinate(key(), &CaProfile::named("sub"), NOW).unwrap();
    let below = sub.subordinate(key(), &CaProfile::named("below"), NOW).unwrap_err();
    assert_eq!(below, CaError::PathLen { allowed: 0 });
    assert_eq!(
        root.subordinate(key(), &CaProfile::named("root"), NOW).unwrap_err(),
        CaError::SameAsIssuer
    );
    assert_eq!(sub.chain().len(), 0);
    assert_eq!(sub.root_der(), Some(root.certificate_der()));
    assert_eq!(sub.issuing_chain().count(), 1);
    assert_eq!(root.issuing_chain().count(), 0);
}

#[test]
fn urls_have_the_designs_form() {
    let publication = Publication::new("http://pki.example.com/a/").unwrap();
    let ca = root(KeyAlgorithm::EcdsaP256);
    let id = ca.key_id().to_string();
    assert_eq!(id.len(), 40);
    assert_eq!(
        publication.crl_url(ca.key_id(), CA_PARTITION),
        format!("http://pki.example.com/a/crl/{id}/ca.crl")
    );
    assert_eq!(
        publication.ca_issuers_url(ca.key_id()),
        format!("http://pki.example.com/a/ca/{id}.cer")
    );
    assert_eq!(publication.ocsp_url(ca.key_id()), None);
    assert_eq!(partition_of(NOW), "2026-09");
    assert_eq!(partition_of(1_798_761_599), "2026-12");
    assert_eq!(partition_of(1_798_761_600), "2027-01");
    for bad in [
        "",
        "pki.example.com",
        "ftp://a",
        "http://",
        "http:///x",
        "http://a b",
        "http://a/?q",
        "http://ä",
    ] {
        assert!(Publication::new(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_certificate_is_read_or_refused_without_panic(
        at in proptest::prelude::any::<proptest::prelude::prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| {
            issue(&root(KeyAlgorithm::EcdsaP256), &device_csr(KeyAlgorithm::EcdsaP256), DAY).der.to_vec()
        });
        let mut der = LEAF.clone();
        der[at.index(LEAF.len())] ^= flip;
        let _ = parse_certificate_info(&der);
    }
}

/// `cargo test -p certwave-pki --release --test it -- --ignored --nocapture bench`
#[test]
#[ignore = "a measurement, not a check"]
fn bench_issues_per_second_on_one_thread() {
    let ca = root(KeyAlgorithm::EcdsaP256).with_publication(Publication::new("http://pki.example.com").unwrap());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let der = create_leaf_csr(&key, "pump-17").unwrap();
    let policy = CsrPolicy::default();
    let started = Instant::now();
    let count = 5_000;
    for _ in 0..count {
        issue(&ca, &Csr::parse(&der, &policy).unwrap(), DAY);
    }
    println!(
        "pki.issue {:.0} per second and core",
        f64::from(count) / started.elapsed().as_secs_f64()
    );
}
