//! Which signatures are believed, and which keys are taken.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{EnvelopeError, Unverified, sign_down, sign_up};
use certwave_protocol::jws::{Algorithm, SigningKey, VerifyingKey};
use certwave_protocol::message::Der;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::Value;

use super::{MATERIAL, forge, header_and_payload, open, sample};
use crate::pki::{p256, signing};
use crate::samples::{By, Sample};

#[test]
fn each_kind_of_key_signs_with_its_own_algorithm_and_no_other() {
    let keys = [
        (p256(), Algorithm::Es256, 64),
        (
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            Algorithm::Es384,
            96,
        ),
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), Algorithm::EdDsa, 64),
        (
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            Algorithm::Ps256,
            256,
        ),
    ];
    let Sample { payload, .. } = sample("tested");
    let fingerprint = MATERIAL.b.fingerprint();
    for (pair, algorithm, length) in &keys {
        let key = signing(pair);
        assert_eq!(key.algorithm(), *algorithm);
        assert_eq!(key.sign(b"x").len(), *length);
        assert_eq!(
            VerifyingKey::from_spki(key.public_key().spki()).as_ref(),
            Ok(key.public_key())
        );
        let sealed = sign_up(&payload, &key, fingerprint);
        let (mut header, body) = header_and_payload(&sealed);
        assert_eq!(header["alg"], algorithm.as_str());
        assert_eq!(
            Unverified::parse(&sealed).unwrap().verify(key.public_key()).as_ref(),
            Ok(&payload)
        );
        for other in ["none", "HS256", "RS256", "es256", ""]
            .into_iter()
            .chain(Algorithm::ALL.map(Algorithm::as_str))
        {
            if other == algorithm.as_str() {
                continue;
            }
            header["alg"] = other.into();
            let error = Unverified::parse(&forge(&header, &body, &key))
                .unwrap()
                .verify(key.public_key())
                .unwrap_err();
            assert_eq!(error.code(), Code::BadAlgorithm, "{other} for {algorithm}");
        }
    }
}

#[test]
fn another_key_of_the_same_kind_is_refused() {
    for sample in MATERIAL.samples() {
        let by = if sample.by == By::A { By::B } else { By::A };
        assert_eq!(
            open(&MATERIAL.seal(&sample), by),
            Err(EnvelopeError::BadSignature),
            "{}",
            sample.name
        );
    }
}

#[test]
fn a_signature_in_asn1_form_is_refused() {
    let key = p256();
    let (header, payload) = header_and_payload(&MATERIAL.seal(&sample("tested")));
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let covered = format!("{}.{}", part(&header), part(&payload));
    let der = rcgen::SigningKey::sign(&key, covered.as_bytes()).unwrap();
    let message = format!("{covered}.{}", URL_SAFE_NO_PAD.encode(der));
    let error = Unverified::parse(message.as_bytes())
        .unwrap()
        .verify(signing(&key).public_key())
        .unwrap_err();
    assert_eq!(error, EnvelopeError::BadSignature);
}

#[test]
fn the_wrong_direction_is_refused_even_with_a_good_signature() {
    let Sample { payload, .. } = sample("commit");
    let up = sign_up(&payload, &MATERIAL.a.key, MATERIAL.a.fingerprint());
    assert_eq!(Unverified::parse(&up).unwrap_err().code(), Code::Malformed);
    let down = sign_down(&sample("tested").payload, &MATERIAL.control.key, &MATERIAL.x5c());
    assert_eq!(Unverified::parse(&down).unwrap_err().code(), Code::Malformed);
}

#[test]
fn keys_do_not_show_themselves() {
    let shown = format!("{:?} {:?}", MATERIAL.a.key, MATERIAL.a.key.public_key());
    assert_eq!(
        shown,
        "SigningKey { algorithm: Es256, .. } VerifyingKey { algorithm: Es256, .. }"
    );
}

#[test]
fn weak_and_strange_keys_are_not_taken() {
    assert!(SigningKey::from_pkcs8(&[]).is_err());
    assert!(SigningKey::from_pkcs8(MATERIAL.a.der.as_ref()).is_err());
    assert!(VerifyingKey::from_spki(&[0x30, 0x00]).is_err());
    assert!(VerifyingKey::from_certificate(&MATERIAL.a.pkcs8).is_err());
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(SigningKey::from_pkcs8(&p521.serialize_der()).is_err());
    assert!(VerifyingKey::from_certificate(Der(vec![0x30; 40]).as_ref()).is_err());
}

/// RFC 7515 A.3 (ES256) and RFC 8037 A.4 (`EdDSA`).
#[test]
fn the_rfcs_own_signatures_verify() {
    let b64 = |s: &str| URL_SAFE_NO_PAD.decode(s).unwrap();
    let p256_prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let x = b64("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = b64("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let spki = [b64(p256_prefix), x, y].concat();
    let key = VerifyingKey::from_spki(&spki).unwrap();
    let covered = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb\
                   290Ijp0cnVlfQ";
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert_eq!(key.verify(covered.as_bytes(), &b64(signature)), Ok(()));
    assert!(key.verify(b"something else", &b64(signature)).is_err());

    let ed25519_prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let spki = [&ed25519_prefix[..], &b64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")].concat();
    let key = VerifyingKey::from_spki(&spki).unwrap();
    let covered = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(key.verify(covered.as_bytes(), &b64(signature)), Ok(()));
}
