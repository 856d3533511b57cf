//! What a device reads: what the controller says, the certificate that it says it by, and the file of a claim.

use std::time::Duration;

use anyhow::{Context, Result};
use certwave_agent::claim::Claim;
use certwave_pki::{
    CertificateAuthority, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, certificates_to_pem,
};
use certwave_protocol::control::{ControlTrust, common_name};
use certwave_protocol::envelope::{self, Unverified};
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::targets::{NOW, Target, covered, message, payloads};

/// A key, and the certificate by which it says who it is.
struct Named {
    key: PrivateKey,
    certificate: Vec<u8>,
}

fn named(ca: &CertificateAuthority, name: &str, usage: LeafUsage) -> Result<Named> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let request = LeafRequest {
        subject: &LeafSubject::common_name(name)?,
        public_key: key.public_key(),
        usage,
        validity: Duration::from_hours(24),
        backdate: Duration::from_hours(1),
    };
    let certificate = ca.issue(&request, NOW)?.der.to_vec();
    Ok(Named { key, certificate })
}

/// All of them.
pub(super) fn targets(ca: &CertificateAuthority) -> Result<Vec<Target>> {
    let broker: BrokerId = "main".parse()?;
    let control = named(ca, &common_name(&broker), LeafUsage::Control)?;
    // Those that may not speak for the controller, though the same CA has issued them.
    let others = [
        ("~controller", LeafUsage::Controller),
        ("~claim.line", LeafUsage::Claim),
    ]
    .map(|(name, usage)| named(ca, name, usage));
    let trust = ControlTrust::new(&[Der(ca.certificate_der().to_vec())])?;
    let [controller, claim] = others;
    let claim = claim?;
    Ok(vec![
        order(&control, trust.clone(), broker.clone())?,
        certificate(&control, &controller?, trust, broker),
        message(
            "order-payload",
            &format!(r#""x5c":["{}"]"#, base64_standard(&control.certificate)),
        ),
        claim_file(ca, &claim),
    ])
}

fn base64_standard(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// As a device takes it: parsed, its signer's chain checked, and then its signature.
fn order(control: &Named, trust: ControlTrust, broker: BrokerId) -> Result<Target> {
    let key = SigningKey::from_pkcs8(control.key.secret_pkcs8_der())?;
    let x5c = [Der(control.certificate.clone())];
    let sealed = |json: &Vec<u8>| {
        let payload = serde_json::from_slice(json).ok()?;
        Some(envelope::sign_down(&payload, &key, &x5c)).filter(|message| Unverified::parse(message).is_ok())
    };
    let seeds: Vec<_> = payloads().iter().filter_map(sealed).collect();
    seeds
        .first()
        .context("the specification shows no message that goes down")?;
    let genuine: Vec<_> = seeds.iter().map(|message| covered(message)).collect();
    Ok(Target::new("order", seeds, move |input| {
        let Ok(unverified) = Unverified::parse(input) else {
            return false;
        };
        let believed = trust
            .verify(unverified.x5c(), &broker, NOW)
            .is_ok_and(|key| unverified.verify(&key).is_ok());
        assert!(!believed || genuine.contains(&covered(input)), "an order was forged");
        true
    }))
}

/// The first of `x5c`; what it takes can only be the one that the CA has issued for this.
fn certificate(control: &Named, other: &Named, trust: ControlTrust, broker: BrokerId) -> Target {
    let seeds = vec![control.certificate.clone()];
    let genuine = control.certificate.clone();
    let own = Der(other.certificate.clone());
    Target::new("control-certificate", seeds, move |input| {
        assert!(
            trust.verify(std::slice::from_ref(&own), &broker, NOW).is_err(),
            "another usage was taken"
        );
        let taken = trust.verify(&[Der(input.to_vec())], &broker, NOW).is_ok();
        // The signature has more than one form (ECDSA's twin); what it covers has not.
        let covered = genuine.len() - 80;
        assert!(
            !taken || input.get(8..covered) == genuine.get(8..covered),
            "a control certificate was forged"
        );
        taken
    })
}

fn claim_file(ca: &CertificateAuthority, claim: &Named) -> Target {
    let file = |device: Option<&str>| {
        let file = json!({
            "version": 1, "brokerId": "main", "url": "mqtts://broker.example.com:8883",
            "claimsUrl": "mqtts://broker.example.com:8884", "topicPrefix": "certwave/v1", "claim": "line",
            "deviceId": device, "certificate": certificates_to_pem([claim.certificate.as_slice()]),
            "privateKey": claim.key.to_pkcs8_pem().expose_secret(),
            "trustAnchors": certificates_to_pem([ca.certificate_der()]),
        });
        file.to_string().into_bytes()
    };
    Target::new("claim-file", vec![file(None), file(Some("pump-0042"))], |input| {
        let Ok(claim) = Claim::parse(input) else {
            return false;
        };
        let first = claim.chain.first().expect("a claim has a certificate");
        assert_eq!(claim.leaf, Fingerprint::of(first), "another certificate's fingerprint");
        assert!(!claim.anchors.is_empty(), "a claim that trusts nobody was taken");
        true
    })
}
