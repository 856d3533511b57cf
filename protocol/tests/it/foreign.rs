//! OpenSSL agrees with us: on keys, signatures both ways, certificates and the test vectors.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use certwave_protocol::jws::{Algorithm, SigningKey, VerifyingKey};
use certwave_protocol::message::Der;
use tempfile::TempDir;

use crate::pki::NOW;
use crate::samples::By;
use crate::vectors::VECTORS;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A key pair: PKCS#8 in `private`, its public half in `public`. OpenSSL 3.0 writes PKCS#8 as DER in two steps only.
    fn make_key(&self, arguments: &[&str]) {
        let (pem, private, public) = (self.path("pem"), self.path("private"), self.path("public"));
        openssl(&[&["genpkey", "-out", &pem], arguments].concat());
        openssl(&[
            "pkcs8", "-topk8", "-nocrypt", "-in", &pem, "-outform", "DER", "-out", &private,
        ]);
        openssl(&["pkey", "-in", &pem, "-pubout", "-outform", "DER", "-out", &public]);
    }

    fn certificate(&self, name: &str, der: &Der) -> String {
        let text = STANDARD.encode(der).into_bytes();
        let body = text.chunks(64).collect::<Vec<_>>().join(&b'\n');
        self.write(
            name,
            &[
                b"-----BEGIN CERTIFICATE-----\n",
                &body[..],
                b"\n-----END CERTIFICATE-----\n",
            ]
            .concat(),
        )
    }
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("this test needs the openssl command");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// r and s, one after the other, as a DER `ECDSA-Sig-Value` (RFC 3279 2.2.3).
fn asn1(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
        if bytes.first().is_none_or(|b| *b >= 0x80) {
            bytes.insert(0, 0);
        }
        let mut out = vec![0x02, u8::try_from(bytes.len()).unwrap()];
        out.append(&mut bytes);
        out
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let content = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(content.len()).unwrap()], content].concat()
}

/// The other way round, for signatures whose halves have `length` bytes.
fn fixed(der: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (value, after) = rest[2..].split_at(usize::from(rest[1]));
        let value: Vec<u8> = value.iter().copied().skip_while(|b| *b == 0).collect();
        out.resize(out.len() + length - value.len(), 0);
        out.extend(value);
        rest = after;
    }
    out
}

/// How OpenSSL is told to make a key and to use it as JWS does.
struct Kind {
    algorithm: Algorithm,
    make: &'static [&'static str],
    digest: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        algorithm: Algorithm::Es256,
        make: &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        digest: &["-rawin", "-digest", "sha256"],
    },
    Kind {
        algorithm: Algorithm::Es384,
        make: &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        digest: &["-rawin", "-digest", "sha384"],
    },
    Kind {
        algorithm: Algorithm::EdDsa,
        make: &["-algorithm", "ED25519"],
        digest: &["-rawin"],
    },
    Kind {
        algorithm: Algorithm::Ps256,
        make: &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        digest: &[
            "-rawin",
            "-digest",
            "sha256",
            "-pkeyopt",
            "rsa_padding_mode:pss",
            "-pkeyopt",
            "rsa_pss_saltlen:32",
            "-pkeyopt",
            "rsa_mgf1_md:sha256",
        ],
    },
];

impl Kind {
    fn as_x509(&self, signature: Vec<u8>) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Es256 | Algorithm::Es384 => asn1(&signature),
            Algorithm::EdDsa | Algorithm::Ps256 => signature,
        }
    }

    fn as_jws(&self, signature: Vec<u8>) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Es256 => fixed(&signature, 32),
            Algorithm::Es384 => fixed(&signature, 48),
            Algorithm::EdDsa | Algorithm::Ps256 => signature,
        }
    }
}

#[test]
fn openssl_verifies_what_we_sign_and_signs_what_we_verify() {
    let folder = Folder::new();
    let message = folder.write("message", b"header.payload");
    let (private, public) = (folder.path("private"), folder.path("public"));
    for kind in KINDS {
        folder.make_key(kind.make);
        let key = SigningKey::from_pkcs8(&folder.read("private")).unwrap();
        assert_eq!(key.algorithm(), kind.algorithm);
        assert_eq!(key.public_key().spki(), folder.read("public"), "{}", kind.algorithm);

        let ours = folder.write("ours", &kind.as_x509(key.sign(b"header.payload")));
        let input = ["-in", &message, "-keyform", "DER"];
        let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", &public, "-sigfile", &ours];
        openssl(&[&verify[..], &input, kind.digest].concat());

        let theirs = folder.path("theirs");
        let sign = ["pkeyutl", "-sign", "-inkey", &private, "-out", &theirs];
        openssl(&[&sign[..], &input, kind.digest].concat());
        let signature = kind.as_jws(folder.read("theirs"));
        let verifying = VerifyingKey::from_spki(&folder.read("public")).unwrap();
        assert_eq!(
            verifying.verify(b"header.payload", &signature),
            Ok(()),
            "{}",
            kind.algorithm
        );
        assert!(
            verifying.verify(b"header.payloae", &signature).is_err(),
            "{}",
            kind.algorithm
        );
    }
}

#[test]
fn keys_that_protect_nothing_are_not_taken() {
    let folder = Folder::new();
    for make in [
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        &["-algorithm", "X25519"],
    ] {
        folder.make_key(make);
        assert!(SigningKey::from_pkcs8(&folder.read("private")).is_err(), "{make:?}");
        assert!(VerifyingKey::from_spki(&folder.read("public")).is_err(), "{make:?}");
    }
}

#[test]
fn openssl_verifies_the_vectors() {
    let folder = Folder::new();
    let m = &VECTORS.material;
    let (root, issuing) = (
        folder.certificate("root", &m.root),
        folder.certificate("issuing", &m.issuing),
    );
    let now = NOW.to_string();
    let mut keys = Vec::new();
    for (by, leaf) in [
        (By::Control, &m.control),
        (By::Claim, &m.claim),
        (By::A, &m.a),
        (By::B, &m.b),
    ] {
        let certificate = folder.certificate(&format!("{by:?}.crt"), &leaf.der);
        openssl(&[
            "verify",
            "-x509_strict",
            "-attime",
            &now,
            "-CAfile",
            &root,
            "-untrusted",
            &issuing,
            &certificate,
        ]);
        let key = openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"]);
        keys.push((by, folder.write(&format!("{by:?}.pub"), key.as_bytes())));
    }
    for (vector, sample) in VECTORS.messages.iter().zip(m.samples()) {
        let (covered, signature) = vector.envelope.rsplit_once('.').unwrap();
        let message = folder.write("message", covered.as_bytes());
        let signature = folder.write("signature", &asn1(&URL_SAFE_NO_PAD.decode(signature).unwrap()));
        let (_, key) = keys.iter().find(|(by, _)| *by == sample.by).unwrap();
        openssl(&["dgst", "-sha256", "-verify", key, "-signature", &signature, &message]);
    }
}
