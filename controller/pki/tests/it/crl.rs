//! CRLs as they are made and read back, without foreign help.

use std::{sync::LazyLock, time::Instant};

use certwave_pki::{
    CaProfile, CertificateAuthority, KeyAlgorithm, PrivateKey, Serial,
    crl::{Crl, CrlEncoder, CrlError, CrlHead, CrlKind, CrlReadError, Listed, Mark, Reason},
};
use proptest::prelude::*;

use crate::tools::{CpuTime, NOW, root};

const URL: &str = "http://pki.example.com/crl/aa/2026-09.crl";

pub(crate) const fn head(kind: CrlKind<'_>) -> CrlHead<'_> {
    CrlHead {
        scope_url: Some(URL),
        number: 1_790_000_000_000,
        this_update: NOW - 60,
        next_update: NOW + 86_400,
        kind,
    }
}

const COMPLETE: CrlKind<'_> = CrlKind::Complete { freshest: None };

fn make(ca: &CertificateAuthority, head: &CrlHead<'_>, entries: &[Listed]) -> Result<Vec<u8>, CrlError> {
    let mut encoder = CrlEncoder::new(ca, head, entries.len())?;
    for entry in entries {
        encoder.push(entry)?;
    }
    encoder.sign()
}

fn listed(serial: &str, at: i64, mark: Mark) -> Listed {
    Listed {
        serial: serial.parse().unwrap(),
        at,
        mark,
        invalid_since: None,
    }
}

static CA: LazyLock<CertificateAuthority> = LazyLock::new(|| root(KeyAlgorithm::EcdsaP256));
/// A delta CRL with a line of each kind.
static DELTA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let entries = [
        listed("01", NOW, Mark::Revoked(Reason::KeyCompromise)),
        listed(&"ff".repeat(20), NOW, Mark::Revoked(Reason::Unspecified)),
        listed("7f02", 2_600_000_000, Mark::Removed),
    ];
    make(&CA, &head(CrlKind::Delta { base: 17 }), &entries).unwrap()
});

#[test]
fn an_unspecified_reason_is_left_out_and_an_empty_list_too() {
    let with = |entries: &[Listed]| make(&CA, &head(COMPLETE), entries).unwrap();
    let id_ce_crl_reasons = [0x55, 0x1d, 0x15];
    let has = |der: &[u8]| der.windows(3).any(|bytes| bytes == id_ce_crl_reasons);
    assert!(!has(&with(&[listed("41", NOW, Mark::Revoked(Reason::Unspecified))])));
    assert!(has(&with(&[listed("41", NOW, Mark::Revoked(Reason::CertificateHold))])));
    let empty = with(&[]);
    let crl = Crl::parse(&empty).unwrap();
    assert!(crl.is_empty());
    assert_eq!(crl.entries().count(), 0);
}

#[test]
fn what_cannot_be_said_is_refused() {
    let refused = |head: &CrlHead<'_>| CrlEncoder::new(&*CA, head, 0).unwrap_err();
    let late = CrlHead {
        next_update: NOW - 60,
        ..head(COMPLETE)
    };
    assert_eq!(refused(&late), CrlError::NoValidity);
    for url in ["", "ldap://x", "http://a b", "http://\u{e4}"] {
        let scope = CrlHead {
            scope_url: Some(url),
            ..head(COMPLETE)
        };
        assert_eq!(refused(&scope), CrlError::Scope(url.into()));
        let freshest = CrlKind::Complete { freshest: Some(url) };
        assert_eq!(refused(&head(freshest)), CrlError::Scope(url.into()));
    }
    let number = head(COMPLETE).number;
    for base in [number, number + 1] {
        assert_eq!(refused(&head(CrlKind::Delta { base })), CrlError::Base { number, base });
    }
    let removed = listed("01", NOW, Mark::Removed);
    assert_eq!(make(&CA, &head(COMPLETE), &[removed]), Err(CrlError::Removal));
}

#[test]
fn only_the_issuers_own_crl_is_believed() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let namesake = CertificateAuthority::self_signed(key, &CaProfile::named("Plant root"), NOW).unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let stranger = CertificateAuthority::self_signed(key, &CaProfile::named("Another"), NOW).unwrap();
    let crl = Crl::parse(&DELTA).unwrap();
    crl.verify(CA.certificate_der()).unwrap();
    let error = |ca: &CertificateAuthority| crl.verify(ca.certificate_der()).unwrap_err();
    assert_eq!(error(&namesake), CrlReadError::Foreign("another key identifier"));
    assert_eq!(error(&stranger), CrlReadError::Foreign("another name"));
    // keyUsage with keyCertSign and cRLSign becomes one with keyCertSign alone.
    let mut without = CA.certificate_der().to_vec();
    let at = without.windows(4).position(|bytes| bytes == [3, 2, 1, 6]).unwrap();
    without[at..at + 4].copy_from_slice(&[3, 2, 2, 4]);
    let lacks = CrlReadError::Foreign("the CA lacks the key usage cRLSign");
    assert_eq!(crl.verify(&without), Err(lacks));
    assert!(matches!(crl.verify(b"garbage"), Err(CrlReadError::Issuer(_))));
}

#[test]
fn a_crl_that_is_cut_short_or_has_more_behind_it_is_refused() {
    for length in 0..DELTA.len() {
        let error = Crl::parse(&DELTA[..length]).unwrap_err();
        assert_eq!(error.category(), "malformed", "{length}");
    }
    let longer = [&DELTA[..], &[0]].concat();
    assert_eq!(Crl::parse(&longer).unwrap_err().category(), "malformed");
}

#[test]
fn what_is_not_understood_is_not_passed_over() {
    let with = |from: &[u8], to: &[u8]| {
        let at = DELTA.windows(from.len()).position(|bytes| bytes == from).unwrap();
        let mut der = DELTA.clone();
        der[at..at + to.len()].copy_from_slice(to);
        Crl::parse(&der).unwrap_err()
    };
    let unknown_critical = with(&[0x55, 0x1d, 0x1c, 1, 1, 0xff], &[0x55, 0x1d, 0x7f]);
    assert_eq!(unknown_critical.category(), "unsupported");
    // An unused reason code, and a removal in a list that is no delta any more.
    assert_eq!(with(&[0x0a, 1, 1], &[0x0a, 1, 7]).category(), "unsupported");
    assert_eq!(
        with(&[0x55, 0x1d, 0x1b, 1, 1, 0xff], &[0x55, 0x1d, 0x7f, 1, 1, 0]),
        CrlReadError::Malformed("a removal in a complete CRL")
    );
    // The key identifier in a second extension of the same kind.
    assert_eq!(with(&[0x55, 0x1d, 0x14], &[0x55, 0x1d, 0x1b]).category(), "malformed");
}

fn any_entry() -> impl Strategy<Value = Listed> {
    let mark = prop_oneof![
        prop::sample::select(&Reason::ALL[..]).prop_map(Mark::Revoked),
        Just(Mark::Removed)
    ];
    let serial =
        proptest::collection::vec(any::<u8>(), 1..=20).prop_filter_map("zero", |b| Serial::from_bytes(&b).ok());
    // Times that a certificate can carry: 1950 to 9999.
    let time = -631_152_000_i64..=253_402_300_799;
    (serial, time.clone(), mark, proptest::option::of(time)).prop_map(|(serial, at, mark, invalid_since)| Listed {
        serial,
        at,
        mark,
        invalid_since,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        entries in proptest::collection::vec(any_entry(), 0..300),
        number in 1..=u64::MAX,
        base in proptest::option::of(any::<u64>()),
        freshest in any::<bool>(),
        this_update in 0_i64..4_000_000_000,
        life in 1_i64..100_000_000,
        partitioned in any::<bool>(),
    ) {
        let base = base.map(|base| base % number);
        let kind = match base {
            Some(base) => CrlKind::Delta { base },
            None => CrlKind::Complete { freshest: freshest.then_some("http://pki.example.com/delta.crl") },
        };
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|entry| base.is_some() || entry.mark != Mark::Removed)
            .collect();
        let head = CrlHead { number, this_update, next_update: this_update + life, scope_url: partitioned.then_some(URL), ..head(kind) };
        let der = make(&CA, &head, &entries).unwrap();
        let crl = Crl::parse(&der).unwrap();
        crl.verify(CA.certificate_der()).unwrap();
        prop_assert_eq!(crl.entries().collect::<Vec<_>>(), entries);
        prop_assert_eq!((crl.number(), crl.base()), (number, base));
        prop_assert_eq!((crl.this_update(), crl.next_update()), (this_update, this_update + life));
        prop_assert_eq!(crl.scope_url(), partitioned.then_some(URL));
        prop_assert_eq!(crl.freshest().is_some(), freshest && base.is_none());
        prop_assert_eq!(crl.authority_key_id(), Some(CA.key_id().as_bytes()));
    }

    #[test]
    fn random_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Crl::parse(&bytes).is_err());
    }

    #[test]
    fn a_changed_crl_is_never_believed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut der = DELTA.clone();
        let at = at.index(der.len());
        der[at] ^= flip;
        prop_assert!(Crl::parse(&der).and_then(|crl| crl.verify(CA.certificate_der())).is_err());
    }

    #[test]
    fn many_changes_and_cuts_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut der = DELTA.clone();
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Ok(crl) = Crl::parse(&der) {
            prop_assert_eq!(crl.entries().count(), crl.len());
        }
        let _ = Crl::parse(&der[..cut.index(der.len())]);
    }
}

/// `cargo test -p certwave-pki --release --test it -- --ignored --nocapture --exact crl::bench_a_million_entries`
#[test]
#[ignore = "a measurement, not a check"]
fn bench_a_million_entries() {
    const COUNT: u32 = 1_000_000;
    let entry = |n: u32| Listed {
        serial: Serial::from_bytes(&[&[0x41; 13][..], &n.to_be_bytes()].concat()).unwrap(),
        at: NOW - i64::from(n % 1_000_000),
        mark: Mark::Revoked(Reason::KeyCompromise),
        invalid_since: None,
    };
    LazyLock::force(&CA);
    // The last two as when nobody knows how many will come.
    for expected in [COUNT, COUNT, COUNT, 0, 0] {
        // Sets the peak back to what is resident now (proc(5), clear_refs).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmHWM:");
        let started = (Instant::now(), CpuTime::start());
        let mut encoder = CrlEncoder::new(&*CA, &head(COMPLETE), expected as usize).unwrap();
        for n in 0..COUNT {
            encoder.push(&entry(n)).unwrap();
        }
        let lines = started.1.elapsed();
        let der = encoder.sign().unwrap();
        let (wall, cpu) = (started.0.elapsed(), started.1.elapsed());
        let peak = memory("VmHWM:") - before;
        let started = CpuTime::start();
        let crl = Crl::parse(&der).unwrap();
        let parsed = started.elapsed();
        crl.verify(CA.certificate_der()).unwrap();
        let verified = started.elapsed();
        println!(
            "crl.build_1m {wall:.3?} wall, {cpu:.3?} CPU (lines {lines:.3?}), {} KiB, peak {peak} KiB above the start; \
             read {parsed:.3?} CPU, verified {verified:.3?} CPU",
            der.len() / 1024
        );
        assert_eq!(crl.len(), COUNT as usize);
    }
}

/// A line of `/proc/self/status`, in KiB.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
