//! Who may speak as the controller.

use std::sync::LazyLock;

use certwave_protocol::code::Code;
use certwave_protocol::control::{CONTROL_EKU_DER, CONTROL_EKU_OID, ControlError, ControlTrust, common_name};
use certwave_protocol::ids::BrokerId;
use certwave_protocol::jws::VerifyingKey;
use certwave_protocol::message::Der;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

use crate::pki::{Ca, DAY, Leaf, NOW, Profile};

struct World {
    root: Ca,
    issuing: Ca,
    broker: BrokerId,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = Ca::root("Root");
    World {
        issuing: root.intermediate("Issuing"),
        root,
        broker: "plant-1".parse().unwrap(),
    }
});

fn check(leaf: &Leaf, now: i64) -> Result<VerifyingKey, ControlError> {
    let trust = ControlTrust::new(std::slice::from_ref(&WORLD.root.der)).unwrap();
    trust.verify(&[leaf.der.clone(), WORLD.issuing.der.clone()], &WORLD.broker, now)
}

fn control() -> Profile {
    Profile::control(&common_name(&WORLD.broker))
}

#[test]
fn the_controllers_certificate_gives_its_key() {
    let leaf = WORLD.issuing.leaf(control());
    assert_eq!(check(&leaf, NOW).as_ref(), Ok(leaf.key.public_key()));
}

#[test]
fn anchors_may_be_any_ca_of_the_path_and_others_do_no_harm() {
    let leaf = WORLD.issuing.leaf(control());
    let other = Ca::root("Other");
    let trust = ControlTrust::new(&[other.der.clone(), WORLD.issuing.der.clone()]).unwrap();
    assert!(
        trust
            .verify(std::slice::from_ref(&leaf.der), &WORLD.broker, NOW)
            .is_ok()
    );
    let x5c = [leaf.der.clone(), other.der.clone(), WORLD.issuing.der.clone()];
    let trust = ControlTrust::new(std::slice::from_ref(&WORLD.root.der)).unwrap();
    assert!(
        trust.verify(&x5c, &WORLD.broker, NOW).is_ok(),
        "order and surplus of intermediates do not matter"
    );
}

#[test]
fn a_wrong_clock_can_be_told_from_a_wrong_certificate() {
    let leaf = WORLD.issuing.leaf(control());
    assert_eq!(check(&leaf, 0), Err(ControlError::NotYetValid));
    assert_eq!(check(&leaf, -1), Err(ControlError::NotYetValid));
    assert_eq!(check(&leaf, NOW + 365 * DAY), Err(ControlError::Expired));
    assert_eq!(check(&leaf, i64::MAX), Err(ControlError::Expired));
}

#[test]
fn other_certificates_of_the_same_ca_are_refused() {
    let usages = |usages| Profile { usages, ..control() };
    let none = WORLD.issuing.leaf(usages(vec![]));
    let client = WORLD.issuing.leaf(usages(vec![ExtendedKeyUsagePurpose::ClientAuth]));
    let any = WORLD.issuing.leaf(usages(vec![ExtendedKeyUsagePurpose::Any]));
    let device = WORLD.issuing.leaf(Profile::client("pump-0042"));
    let keyless = WORLD.issuing.leaf(Profile {
        key_usages: vec![KeyUsagePurpose::KeyAgreement],
        ..control()
    });
    for leaf in [none, client, any, device, keyless] {
        let error = check(&leaf, NOW).unwrap_err();
        assert_eq!((&error, error.code()), (&ControlError::Usage, Code::UntrustedControl));
    }
}

#[test]
fn an_issuer_for_other_usages_only_cannot_make_control_certificates() {
    let trust = ControlTrust::new(std::slice::from_ref(&WORLD.root.der)).unwrap();
    let issued_by = |usages: Vec<ExtendedKeyUsagePurpose>| {
        let issuing = WORLD.root.intermediate_for("Narrow", usages);
        trust
            .verify(&[issuing.leaf(control()).der, issuing.der.clone()], &WORLD.broker, NOW)
            .map(drop)
    };
    let control = ExtendedKeyUsagePurpose::Other(CONTROL_EKU_OID.to_vec());
    assert_eq!(
        issued_by(vec![ExtendedKeyUsagePurpose::ClientAuth]),
        Err(ControlError::Usage)
    );
    assert_eq!(issued_by(vec![ExtendedKeyUsagePurpose::ClientAuth, control]), Ok(()));
}

#[test]
fn the_controller_of_another_broker_is_refused() {
    for names in [
        vec!["~control.plant-2"],
        vec!["plant-1"],
        vec![],
        vec!["~control.plant-1", "~control.plant-1"],
    ] {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let error = check(&WORLD.issuing.leaf(Profile { names, ..control() }), NOW).unwrap_err();
        assert!(matches!(error, ControlError::Name { .. }), "{error:?}");
        assert_eq!(error.code(), Code::WrongBroker);
    }
}

#[test]
fn a_path_to_an_anchor_is_needed() {
    let leaf = WORLD.issuing.leaf(control());
    let trust = ControlTrust::new(std::slice::from_ref(&WORLD.root.der)).unwrap();
    let untrusted = |trust: &ControlTrust, x5c: &[Der]| {
        let error = trust.verify(x5c, &WORLD.broker, NOW).unwrap_err();
        assert!(matches!(error, ControlError::Untrusted(_)), "{error:?}");
    };
    untrusted(&trust, std::slice::from_ref(&leaf.der));
    untrusted(
        &ControlTrust::new(&[]).unwrap(),
        &[leaf.der.clone(), WORLD.issuing.der.clone()],
    );
    // Same names, other keys.
    let root = Ca::root("Root");
    let issuing = root.intermediate("Issuing");
    untrusted(
        &trust,
        &[issuing.leaf(control()).der, issuing.der.clone(), root.der.clone()],
    );
    untrusted(&trust, &[issuing.leaf(control()).der, WORLD.issuing.der.clone()]);
}

#[test]
fn what_is_no_certificate_is_refused() {
    let trust = ControlTrust::new(std::slice::from_ref(&WORLD.root.der)).unwrap();
    for x5c in [vec![], vec![Der(vec![])], vec![Der(vec![0x30, 0x03, 1, 2, 3])]] {
        assert!(matches!(
            trust.verify(&x5c, &WORLD.broker, NOW),
            Err(ControlError::Unreadable(_))
        ));
    }
    assert!(matches!(
        ControlTrust::new(&[Der(vec![1])]),
        Err(ControlError::Anchor(_))
    ));
}

#[test]
fn both_forms_of_the_usages_oid_are_the_same() {
    let mut der = Vec::new();
    let first = CONTROL_EKU_OID[0] * 40 + CONTROL_EKU_OID[1];
    for arc in std::iter::once(&first).chain(&CONTROL_EKU_OID[2..]) {
        let bits = 64 - arc.leading_zeros();
        for group in (0..bits.div_ceil(7).max(1)).rev() {
            let byte = u8::try_from((arc >> (7 * group)) & 0x7f).unwrap();
            der.push(if group == 0 { byte } else { byte | 0x80 });
        }
    }
    assert_eq!(der, CONTROL_EKU_DER);
}
