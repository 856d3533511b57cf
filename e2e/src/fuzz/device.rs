//! What a device reads: what the controller says, the certificate that it says it by, and the file of a claim.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwave_agent::claim::Claim;
use certwave_pki::{CertificateAuthority, LeafUsage, certificates_to_pem};
use certwave_protocol::control::{ControlTrust, common_name};
use certwave_protocol::envelope::{self, Unverified};
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::targets::{NOW, Named, Target, covered, message, payloads, same_but_for_signature};

/// All of them.
pub(super) fn targets(ca: &CertificateAuthority) -> Result<Vec<Target>> {
    let broker: BrokerId = "main".parse()?;
    let control = Named::issue(ca, &common_name(&broker), LeafUsage::Control)?;
    let claim = Named::issue(ca, "~claim.line", LeafUsage::Claim)?;
    let trust = ControlTrust::new(&[Der(ca.certificate_der().to_vec())])?;
    let x5c = STANDARD.encode(&control.certificate);
    let mut all = vec![
        message("order-payload", &format!(r#""x5c":["{x5c}"]"#)),
        claim_file(ca, &claim),
    ];
    // Those that may not speak for the controller, though the same CA has issued them.
    let controller = Named::issue(ca, "~controller", LeafUsage::Controller)?;
    for other in [controller, claim] {
        let taken = trust.verify(&[Der(other.certificate)], &broker, NOW);
        ensure!(
            taken.is_err(),
            "a certificate of another usage may speak for the controller"
        );
    }
    all.push(order(&control, trust.clone(), broker.clone())?);
    all.push(control_certificate(&control, trust, broker));
    Ok(all)
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
fn control_certificate(control: &Named, trust: ControlTrust, broker: BrokerId) -> Target {
    let genuine = control.certificate.clone();
    Target::new("control-certificate", vec![genuine.clone()], move |input| {
        let taken = trust.verify(&[Der(input.to_vec())], &broker, NOW).is_ok();
        assert!(
            !taken || same_but_for_signature(&genuine, input),
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
