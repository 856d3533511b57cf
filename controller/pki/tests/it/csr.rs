//! Requests that are refused, each with its code.

use std::sync::LazyLock;

use certwave_pki::{Csr, CsrError, CsrPolicy, KeyAlgorithm, MAX_CSR_BYTES, PrivateKey, create_leaf_csr};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::tools::openssl;

fn request(algorithm: KeyAlgorithm) -> Vec<u8> {
    create_leaf_csr(&PrivateKey::generate(algorithm).unwrap(), "pump-17").unwrap()
}

fn code(der: &[u8]) -> &'static str {
    Csr::parse(der, &CsrPolicy::default()).unwrap_err().code()
}

/// A request made by OpenSSL with a key made by `openssl genpkey` and these arguments.
fn openssl_request(genpkey: &[&str], req: &[&str]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    openssl(&[&["genpkey", "-out", &path("key.pem")], genpkey].concat()).unwrap();
    let fixed = [
        "req",
        "-new",
        "-key",
        &path("key.pem"),
        "-subj",
        "/CN=x",
        "-outform",
        "DER",
        "-out",
        &path("csr.der"),
    ];
    openssl(&[&fixed[..], req].concat()).unwrap();
    std::fs::read(path("csr.der")).unwrap()
}

#[test]
fn requests_of_every_algorithm_are_accepted() {
    for algorithm in KeyAlgorithm::ALL {
        let csr = Csr::parse(&request(algorithm), &CsrPolicy::default()).unwrap();
        assert_eq!(csr.algorithm(), algorithm);
    }
}

#[test]
fn requests_made_by_openssl_are_accepted_with_every_hash() {
    for curve in ["P-256", "P-384"] {
        for hash in ["-sha256", "-sha384", "-sha512"] {
            let der = openssl_request(
                &["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")],
                &[hash],
            );
            Csr::parse(&der, &CsrPolicy::default()).unwrap();
        }
    }
    let der = openssl_request(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &["-sha384"]);
    Csr::parse(&der, &CsrPolicy::default()).unwrap();
    let der = openssl_request(&["-algorithm", "ED25519"], &[]);
    Csr::parse(&der, &CsrPolicy::default()).unwrap();
}

#[test]
fn a_request_for_two_names_is_refused_as_either_might_be_another_devices() {
    let request = |subject| openssl_request(&["-algorithm", "ED25519"], &["-subj", subject]);
    let one = Csr::parse(&request("/O=plant/CN=pump-17"), &CsrPolicy::default()).unwrap();
    assert_eq!(one.common_name(), Some("pump-17"));
    let none = Csr::parse(&request("/O=plant"), &CsrPolicy::default()).unwrap();
    assert_eq!(none.common_name(), None);
    for subject in ["/CN=pump-17/CN=pump-18", "/CN=pump-18+CN=pump-17"] {
        assert_eq!(code(&request(subject)), "csr-subject", "{subject}");
    }
}

#[test]
fn garbage_and_trailing_bytes_are_refused() {
    let mut trailing = request(KeyAlgorithm::EcdsaP256);
    trailing.push(0);
    for der in [
        &b""[..],
        b"garbage",
        &[0x30, 0x80, 0, 0],
        &[0x30, 0],
        &[0xff; 100],
        &trailing,
    ] {
        assert_eq!(code(der), "csr-invalid", "{der:02x?}");
    }
}

#[test]
fn a_request_that_is_too_large_is_refused_before_it_is_read() {
    let der = vec![0x30; MAX_CSR_BYTES + 1];
    assert_eq!(
        Csr::parse(&der, &CsrPolicy::default()),
        Err(CsrError::TooLarge(MAX_CSR_BYTES + 1))
    );
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    // The body of one request with the signature of the other: both are Ed25519 and have the same lengths.
    let (one, other) = (request(KeyAlgorithm::Ed25519), request(KeyAlgorithm::Ed25519));
    let body = one.len() - 64;
    let forged = [&one[..body], &other[body..]].concat();
    assert_eq!(code(&forged), "csr-signature");
}

#[test]
fn weak_keys_are_refused() {
    let der = openssl_request(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], &[]);
    assert_eq!(code(&der), "key-weak");
    let exponent = [
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-pkeyopt",
        "rsa_keygen_pubexp:3",
    ];
    assert_eq!(code(&openssl_request(&exponent, &[])), "key-weak");
}

#[test]
fn an_even_exponent_and_an_even_modulus_are_weak() {
    let der = request(KeyAlgorithm::Rsa2048);
    let at = der
        .windows(5)
        .position(|w| w == [0x02, 0x03, 0x01, 0x00, 0x01])
        .unwrap();
    let with = |at: usize, byte: u8| {
        let mut der = der.clone();
        der[at] = byte;
        Csr::parse(&der, &CsrPolicy::default()).unwrap_err()
    };
    assert_eq!(with(at + 4, 2), CsrError::WeakKey("the RSA exponent is even".into()));
    // The last byte of the modulus stands just before the exponent.
    assert_eq!(
        with(at - 1, der[at - 1] & 0xfe),
        CsrError::WeakKey("the RSA modulus is even".into())
    );
    // Leading zero bytes are not DER.
    assert!(matches!(with(at + 2, 0), CsrError::Garbage(_)));
}

#[test]
fn a_point_that_is_not_on_the_curve_is_weak() {
    let mut der = request(KeyAlgorithm::EcdsaP256);
    let point = der.windows(4).position(|w| w == [0x03, 0x42, 0x00, 0x04]).unwrap() + 4;
    der[point + 63] ^= 1;
    assert_eq!(code(&der), "key-weak");
}

#[test]
fn unknown_curves_and_sizes_and_weak_hashes_are_refused() {
    for curve in ["P-521", "secp256k1"] {
        let der = openssl_request(
            &["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")],
            &[],
        );
        assert_eq!(code(&der), "key-algorithm", "{curve}");
    }
    let der = openssl_request(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2056"], &[]);
    assert_eq!(code(&der), "key-algorithm");
    assert_eq!(code(&openssl_request(&["-algorithm", "ED448"], &[])), "key-algorithm");
    let der = openssl_request(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &["-sha1"]);
    assert_eq!(code(&der), "csr-signature");
}

#[test]
fn the_policy_decides_which_algorithms_are_allowed() {
    let policy = CsrPolicy {
        algorithms: vec![KeyAlgorithm::EcdsaP256],
    };
    Csr::parse(&request(KeyAlgorithm::EcdsaP256), &policy).unwrap();
    let error = Csr::parse(&request(KeyAlgorithm::Ed25519), &policy).unwrap_err();
    assert_eq!(error, CsrError::AlgorithmNotAllowed("Ed25519".into()));
    assert_eq!(error.code(), "key-algorithm");
}

proptest! {
    #[test]
    fn random_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Csr::parse(&bytes, &CsrPolicy::default()).is_err());
    }

    #[test]
    fn a_changed_byte_is_never_accepted(rsa in any::<bool>(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        static EC: LazyLock<Vec<u8>> = LazyLock::new(|| request(KeyAlgorithm::EcdsaP256));
        static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| request(KeyAlgorithm::Rsa2048));
        let mut der = if rsa { RSA.clone() } else { EC.clone() };
        let at = at.index(der.len());
        der[at] ^= flip;
        prop_assert!(Csr::parse(&der, &CsrPolicy::default()).is_err());
    }

    #[test]
    fn a_cut_request_is_refused(at in any::<prop::sample::Index>()) {
        static EC: LazyLock<Vec<u8>> = LazyLock::new(|| request(KeyAlgorithm::EcdsaP256));
        prop_assert!(Csr::parse(&EC[..at.index(EC.len())], &CsrPolicy::default()).is_err());
    }
}
