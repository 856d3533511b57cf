//! The test vectors: `protocol/vectors.json`, shown in `docs/protocol.md`. What has not changed is never signed anew.
//!
//! `CERTWAVE_UPDATE=1 cargo test -p certwave-protocol` writes both.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_protocol::control::ControlTrust;
use certwave_protocol::envelope::Unverified;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::jws::{SigningKey, VerifyingKey};
use certwave_protocol::message::{Body, Der};
use serde::{Deserialize, Serialize};

use crate::pki::{Leaf, NOW};
use crate::samples::Material;

#[derive(Serialize, Deserialize)]
struct Signer {
    certificate: Der,
    /// PKCS#8.
    private_key: Der,
}

/// The file. Its keys are public, so they protect nothing.
#[derive(Serialize, Deserialize)]
struct File {
    /// Unix seconds at which every certificate is valid.
    now: i64,
    root: Der,
    next_root: Der,
    issuing: Der,
    control: Signer,
    claim: Signer,
    a: Signer,
    b: Signer,
    csr_a: Der,
    csr_b: Der,
    messages: Vec<Vector>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) envelope: String,
}

pub(crate) struct Vectors {
    pub(crate) material: Material,
    pub(crate) messages: Vec<Vector>,
}

pub(crate) fn updating() -> bool {
    std::env::var_os("CERTWAVE_UPDATE").is_some()
}

pub(crate) static VECTORS: LazyLock<Vectors> = LazyLock::new(|| {
    let stored = std::fs::read_to_string(path());
    let (material, stored) = match stored {
        Ok(text) => load(serde_json::from_str(&text).unwrap()),
        Err(_) if updating() => (Material::new("plant-1", "pump-0042", "line-7"), Vec::new()),
        Err(error) => panic!("{}: {error}", path().display()),
    };
    if !updating() {
        return Vectors {
            material,
            messages: stored,
        };
    }
    let messages = material
        .samples()
        .iter()
        .map(|sample| {
            let old = stored.iter().find(|v| v.name == sample.name);
            let keep = old.filter(|v| {
                let opened = Unverified::parse(v.envelope.as_bytes())
                    .and_then(|u| u.verify(material.key(sample.by).public_key()));
                opened.as_ref() == Ok(&sample.payload)
            });
            let envelope = keep.map_or_else(|| text(material.seal(sample)), |v| v.envelope.clone());
            Vector {
                name: sample.name.into(),
                topic: sample.topic.clone(),
                envelope,
            }
        })
        .collect();
    let vectors = Vectors { material, messages };
    let mut json = serde_json::to_string_pretty(&save(&vectors)).unwrap();
    json.push('\n');
    std::fs::write(path(), json).unwrap();
    vectors
});

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors.json")
}

fn text(envelope: Vec<u8>) -> String {
    String::from_utf8(envelope).unwrap()
}

fn load(file: File) -> (Material, Vec<Vector>) {
    assert_eq!(file.now, NOW);
    let leaf = |signer: Signer| Leaf {
        key: SigningKey::from_pkcs8(&signer.private_key.0).unwrap(),
        der: signer.certificate,
        pkcs8: signer.private_key.0,
    };
    let material = Material {
        broker: "plant-1".parse().unwrap(),
        device: "pump-0042".parse().unwrap(),
        claim_name: "line-7".parse().unwrap(),
        root: file.root,
        next_root: file.next_root,
        issuing: file.issuing,
        control: leaf(file.control),
        claim: leaf(file.claim),
        a: leaf(file.a),
        b: leaf(file.b),
        csr_a: file.csr_a,
        csr_b: file.csr_b,
    };
    (material, file.messages)
}

fn save(vectors: &Vectors) -> File {
    let signer = |leaf: &Leaf| Signer {
        certificate: leaf.der.clone(),
        private_key: Der(leaf.pkcs8.clone()),
    };
    let m = &vectors.material;
    File {
        now: NOW,
        root: m.root.clone(),
        next_root: m.next_root.clone(),
        issuing: m.issuing.clone(),
        control: signer(&m.control),
        claim: signer(&m.claim),
        a: signer(&m.a),
        b: signer(&m.b),
        csr_a: m.csr_a.clone(),
        csr_b: m.csr_b.clone(),
        messages: vectors.messages.clone(),
    }
}

#[test]
fn the_vectors_are_the_samples() {
    let samples = VECTORS.material.samples();
    assert_eq!(
        VECTORS.messages.len(),
        samples.len(),
        "stale: CERTWAVE_UPDATE=1 cargo test -p certwave-protocol"
    );
    for (vector, sample) in VECTORS.messages.iter().zip(samples) {
        assert_eq!((vector.name.as_str(), &vector.topic), (sample.name, &sample.topic));
        let payload = URL_SAFE_NO_PAD
            .decode(vector.envelope.split('.').nth(1).unwrap())
            .unwrap();
        let wanted = serde_json::to_string(&sample.payload).unwrap();
        assert_eq!(
            String::from_utf8(payload).unwrap(),
            wanted,
            "{}: byte for byte",
            vector.name
        );
    }
}

#[test]
fn the_vectors_verify_as_a_device_and_a_controller_would() {
    let m = &VECTORS.material;
    let trust = ControlTrust::new(std::slice::from_ref(&m.root)).unwrap();
    for vector in &VECTORS.messages {
        let unverified = Unverified::parse(vector.envelope.as_bytes()).unwrap();
        let key = match unverified.signer() {
            Some(signer) => {
                let leaf = [&m.claim, &m.a, &m.b]
                    .into_iter()
                    .find(|l| l.fingerprint() == signer)
                    .unwrap();
                VerifyingKey::from_certificate(leaf.der.as_ref()).unwrap()
            }
            None => trust.verify(unverified.x5c(), &m.broker, NOW).unwrap(),
        };
        let payload = unverified.verify(&key).unwrap();
        if let Body::Certificate(certificate) = payload.body {
            assert!(
                [&m.a, &m.b]
                    .iter()
                    .any(|l| l.fingerprint() == Fingerprint::of(certificate.leaf.as_ref()))
            );
        }
    }
}
