//! Private keys: read and written, also by OpenSSL, and never shown.

use certwave_pki::{KeyAlgorithm, KeyError, PrivateKey};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::tools::{openssl, write};

#[test]
fn keys_round_trip_and_openssl_reads_them() {
    let dir = TempDir::new().unwrap();
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let pem = key.to_pkcs8_pem();
        let again = PrivateKey::from_pem(pem.expose_secret()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.algorithm(), algorithm);
        let file = write(dir.path(), "key.pem", pem.expose_secret());
        openssl(&["pkey", "-in", &file, "-noout", "-check"]).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
    }
}

#[test]
fn sec1_and_pkcs1_keys_are_read() {
    let dir = TempDir::new().unwrap();
    for (algorithm, label) in [
        (KeyAlgorithm::EcdsaP256, "BEGIN EC PRIVATE KEY"),
        (KeyAlgorithm::EcdsaP384, "BEGIN EC PRIVATE KEY"),
        (KeyAlgorithm::Rsa2048, "BEGIN RSA PRIVATE KEY"),
    ] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let file = write(dir.path(), "key.pem", key.to_pkcs8_pem().expose_secret());
        let pem = openssl(&["pkey", "-in", &file, "-traditional"]).unwrap();
        assert!(pem.contains(label));
        assert_eq!(PrivateKey::from_pem(&pem).unwrap().public_key(), key.public_key());
    }
}

#[test]
fn damaged_or_missing_keys_have_a_clear_error() {
    assert_eq!(PrivateKey::from_pem("").unwrap_err(), KeyError::NoKey);
    let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(PrivateKey::from_pem(damaged).unwrap_err(), KeyError::Unreadable);
}

#[test]
fn debug_does_not_show_the_key() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let seed = &key.secret_pkcs8_der()[16..];
    let shown = format!("{key:?} {key:#?}");
    assert!(!shown.contains(&hex::encode(seed)));
    assert!(shown.contains(&key.key_id().to_string()));
    assert!(shown.len() < 300, "{shown}");
}
