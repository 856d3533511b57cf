//! Which messages a device believes, and by which clock.

use std::sync::Arc;

use certwave_agent::journal::PerSlot;
use certwave_agent::machine::TrustedBy;
use certwave_agent::trust::{Clock, Trust, verify};
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{Unverified, sign_down};
use certwave_protocol::ids::Nonce;
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::{Body, Der, Payload, Reconnect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::broker::{Ca, Leaf};

const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 86_400;

fn trust(ca: &Ca) -> Arc<Trust> {
    let der = CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
    Arc::new(Trust::new(&[Der(der.to_vec())]).unwrap())
}

fn message(key: &Leaf, x5c: &Leaf) -> Unverified {
    let payload = Payload {
        v: 1,
        broker: "b1".parse().unwrap(),
        device: "meter-1".parse().unwrap(),
        session: Nonce([1; 16]),
        job: None,
        nonce: Some(Nonce([2; 16])),
        epoch: Some(1),
        body: Body::Reconnect(Reconnect { within: 1 }),
    };
    let key = SigningKey::from_pkcs8(key.key.serialized_der()).unwrap();
    Unverified::parse(&sign_down(&payload, &key, &[Der(x5c.der.clone())])).unwrap()
}

fn ask(message: Unverified, a: &Ca, b: Option<&Ca>, now: i64) -> Result<TrustedBy, Code> {
    let trusts = PerSlot {
        a: Some(trust(a)),
        b: b.map(trust),
    };
    verify(message, &trusts, &"b1".parse().unwrap(), Clock { now, floor: NOW - 60 }).map(|(_, by)| by)
}

#[test]
fn only_the_control_key_of_this_broker_under_a_trusted_anchor_is_believed() {
    let (ca, other) = (Ca::new("root"), Ca::new("other root"));
    let control = ca.control("~control.b1");
    let believed = |key: &Leaf, x5c: &Leaf| ask(message(key, x5c), &ca, None, NOW);
    assert_eq!(believed(&control, &control), Ok(TrustedBy { a: true, b: false }));
    assert_eq!(believed(&ca.control("~control.b1"), &control), Err(Code::BadSignature));
    let foreign = other.control("~control.b1");
    assert_eq!(believed(&foreign, &foreign), Err(Code::UntrustedControl));
    let elsewhere = ca.control("~control.b2");
    assert_eq!(believed(&elsewhere, &elsewhere), Err(Code::WrongBroker));
    let client = ca.leaf("~control.b1", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(believed(&client, &client), Err(Code::UntrustedControl));
    assert_eq!(
        ask(message(&foreign, &foreign), &ca, Some(&other), NOW),
        Ok(TrustedBy { a: false, b: true })
    );
}

#[test]
fn a_clock_that_is_years_off_silences_no_controller() {
    let ca = Ca::new("root");
    let control = ca.control("~control.b1");
    for now in [NOW - 30 * YEAR, NOW, 0, NOW + 5000 * YEAR] {
        assert!(ask(message(&control, &control), &ca, None, now).is_ok(), "clock {now}");
    }
}
