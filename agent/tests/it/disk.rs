//! Storage on a real disk and on the simulator's, with the power cut between any two instructions.

use std::os::unix::fs::PermissionsExt as _;

use certwave_agent::algorithm::Algorithm;
use certwave_agent::certificate::{CertificateError, check};
use certwave_agent::disk::{Access, Disk, FileDisk, Fuse, MemoryDisk};
use certwave_agent::journal::Journal;
use certwave_agent::recover;
use certwave_agent::store::{KeyStore, Storage, Store};
use certwave_protocol::ids::{DeviceId, Fingerprint};
use certwave_protocol::message::{Der, Slot};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::broker::Ca;

fn device() -> DeviceId {
    "meter-1".parse().unwrap()
}

/// What a reader may find after a cut: the old or the new, never anything else.
fn cut_everywhere(make: impl Fn(Fuse) -> Box<dyn Disk>, again: impl Fn(Box<dyn Disk>) -> Box<dyn Disk>) {
    for after in 0..20 {
        let fuse = Fuse::never();
        let mut disk = make(fuse.clone());
        disk.replace("f", b"old", Access::Secret).unwrap();
        fuse.arm(after);
        let done = disk.replace("f", b"new", Access::Secret);
        fuse.mend();
        let mut disk = again(disk);
        let found = disk.read("f").unwrap().unwrap();
        match done {
            Ok(()) => assert_eq!(&found[..], b"new", "acknowledged after {after}"),
            Err(_) => assert!(&found[..] == b"old" || &found[..] == b"new", "torn after {after}"),
        }
        disk.replace("f", b"newer", Access::Secret).unwrap();
        assert_eq!(
            &disk.read("f").unwrap().unwrap()[..],
            b"newer",
            "left-overs of a cut are no obstacle"
        );
    }
}

#[test]
fn a_file_has_its_old_content_or_its_new_after_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    cut_everywhere(
        |fuse| Box::new(FileDisk::with_fuse(&path, fuse).unwrap()),
        |_| Box::new(FileDisk::open(&path).unwrap()),
    );
    for lucky in [false, true] {
        cut_everywhere(|fuse| Box::new(MemoryDisk::new(fuse, lucky)), |disk| disk);
    }
}

#[test]
fn keys_are_for_the_agent_alone_and_every_algorithm_signs_requests_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::new(FileDisk::open(dir.path()).unwrap());
    for algorithm in [
        Algorithm::EcdsaP256,
        Algorithm::EcdsaP384,
        Algorithm::Ed25519,
        Algorithm::Rsa2048,
    ] {
        store.make(Slot::A, algorithm).unwrap();
        let request = store.request(Slot::A, &device()).unwrap();
        let request = rcgen::CertificateSigningRequestParams::from_der(&request.0.as_slice().into()).unwrap();
        let name = request.params.distinguished_name.get(&rcgen::DnType::CommonName);
        assert_eq!(
            name,
            Some(&rcgen::DnValue::Utf8String("meter-1".to_owned())),
            "{algorithm}"
        );
        let signer = store.signer(Slot::A).unwrap();
        assert_eq!(signer.public_key().spki(), store.spki(Slot::A).unwrap(), "{algorithm}");
        store.tls_key(Slot::A).unwrap();
        let mode = dir.path().join("slot-a.key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_certificate_for_another_key_name_or_chain_is_not_taken() {
    let (ca, stranger) = (Ca::new("root"), Ca::new("other"));
    let mut store = Store::new(MemoryDisk::new(Fuse::never(), true));
    store.make(Slot::A, Algorithm::EcdsaP256).unwrap();
    store.make(Slot::B, Algorithm::EcdsaP256).unwrap();
    let csr = store.request(Slot::A, &device()).unwrap();
    let (leaf, other) = (ca.sign(csr.as_ref(), "meter-1"), ca.sign(csr.as_ref(), "meter-2"));
    let root = CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
    let wrong = CertificateDer::from_pem_slice(stranger.pem.as_bytes()).unwrap();
    let (a, b) = (store.spki(Slot::A).unwrap(), store.spki(Slot::B).unwrap());
    assert!(check(&leaf, &[root], &device(), &a).is_ok());
    assert_eq!(
        check(&leaf, &[] as &[&[u8]], &device(), &b).unwrap_err(),
        CertificateError::Key
    );
    assert_eq!(
        check(&other, &[] as &[&[u8]], &device(), &a).unwrap_err(),
        CertificateError::Name("meter-2".to_owned())
    );
    assert!(matches!(
        check(&leaf, &[wrong], &device(), &a),
        Err(CertificateError::Chain(_))
    ));
    assert!(matches!(
        check(b"garbage", &[] as &[&[u8]], &device(), &a),
        Err(CertificateError::Unreadable(_))
    ));
}

#[test]
fn a_journal_is_made_anew_from_the_credentials_that_fit() {
    let ca = Ca::new("root");
    let anchors = [Der(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap().to_vec())];
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::new(FileDisk::open(dir.path()).unwrap());
    for (slot, name) in [(Slot::A, "meter-1"), (Slot::B, "meter-2")] {
        store.make(slot, Algorithm::EcdsaP256).unwrap();
        let csr = store.request(slot, &device()).unwrap();
        store
            .save_certificate(slot, &[ca.sign(csr.as_ref(), name).into()])
            .unwrap();
    }
    std::fs::write(dir.path().join("journal.json"), "{").unwrap();
    let journal = recover::journal(&mut store, &device(), &anchors).unwrap();
    assert_eq!(journal.active, Some(Slot::A));
    assert!(journal.is_confirmed(Slot::A) && journal.held(Slot::B).is_none());
    assert_eq!(journal.bundle(), Fingerprint::of_bundle(&anchors));
    assert_eq!(store.journal().unwrap(), Some(journal));
}

#[test]
fn a_journal_reads_as_it_was_written() {
    let mut store = Store::new(MemoryDisk::new(Fuse::never(), true));
    assert_eq!(store.journal().unwrap(), None);
    let journal = Journal::new(Fingerprint([3; 32]));
    store.save_journal(&journal).unwrap();
    assert_eq!(store.journal().unwrap(), Some(journal));
}
