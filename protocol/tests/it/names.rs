//! Names and identifiers: what is taken and what is not.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Fingerprint, Nonce};
use certwave_protocol::message::{Der, Slot};
use certwave_protocol::topic::User;

#[test]
fn device_ids() {
    for good in ["a", "0", "A.b_c-9", "x..", &"d".repeat(56)] {
        assert_eq!(good.parse::<DeviceId>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        ".a",
        "-a",
        "_a",
        "~controller",
        "~claim.x",
        "a/b",
        "+",
        "#",
        "a b",
        "ä",
        "a\0",
        &"d".repeat(57),
    ] {
        assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
    }
}

#[test]
fn broker_ids_and_claims() {
    for good in ["a", "0", "plant-1", "a--b", &"b".repeat(40)] {
        assert!(
            good.parse::<BrokerId>().is_ok() && good.parse::<ClaimName>().is_ok(),
            "{good:?}"
        );
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"b".repeat(41)] {
        assert!(
            bad.parse::<BrokerId>().is_err() && bad.parse::<ClaimName>().is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn users() {
    let claim = User::parse("~claim.line-7").unwrap();
    assert_eq!(
        (claim.name().as_str(), claim),
        ("~claim.line-7", User::Claim("line-7".parse().unwrap()))
    );
    assert_eq!(User::parse("pump-1"), Some(User::Device("pump-1".parse().unwrap())));
    for nobody in ["~controller", "~control.plant-1", "~claim.", "~claim.A", "~", ""] {
        assert_eq!(User::parse(nobody), None, "{nobody:?}");
    }
}

#[test]
fn fingerprints_have_one_form_only() {
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Fingerprint::of(b"").to_string(), text);
    assert_eq!(text.parse(), Ok(Fingerprint::of(b"")));
    for bad in [
        text.to_uppercase(),
        text[1..].into(),
        format!("{text}0"),
        text.replace('e', "g"),
        String::new(),
    ] {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}

#[test]
fn nonces_have_one_form_only() {
    let text = Nonce([0xff; 16]).to_string();
    assert_eq!(text, "_____________________w");
    assert_eq!(text.parse(), Ok(Nonce([0xff; 16])));
    // The last one differs only in bits that stand for nothing.
    for bad in [
        "",
        "_____________________w==",
        "____________________w",
        "_____________________x",
    ] {
        assert!(bad.parse::<Nonce>().is_err(), "{bad}");
    }
}

#[test]
fn a_bundles_hash_is_as_specified() {
    // SHA-256 of "a" begins with ca, of "b" with 3e: so b comes first.
    let sorted = [Fingerprint::of(b"b").0, Fingerprint::of(b"a").0].concat();
    assert_eq!(Fingerprint::of_bundle([b"a", b"b"]), Fingerprint::of(&sorted));
}

#[test]
fn unknown_codes_read_as_other() {
    assert_eq!("no-such-code".parse(), Ok(Code::Other));
    assert_eq!(serde_json::from_str::<Code>("\"teapot\"").unwrap(), Code::Other);
    assert!(serde_json::from_str::<Code>("7").is_err());
}

#[test]
fn der_is_standard_base64_with_padding() {
    assert_eq!(serde_json::to_string(&Der(vec![0xfb, 0xff])).unwrap(), "\"+/8=\"");
    for bad in ["\"+/8\"", "\"-_8=\"", "\"+/9=\"", "\"+/8= \""] {
        assert!(serde_json::from_str::<Der>(bad).is_err(), "{bad}");
    }
    assert_eq!([Slot::A.other(), Slot::B.other()], [Slot::B, Slot::A]);
}
