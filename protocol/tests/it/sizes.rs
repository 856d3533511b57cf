//! The clouds meter messages in steps of 5 KB.

use certwave_protocol::envelope::sign_down;
use certwave_protocol::message::{Body, Der, Task};
use certwave_protocol::{MAX_MESSAGE, P256_BUDGET};

use crate::samples::Material;

#[test]
fn with_p256_and_one_intermediate_every_message_is_one_metering_step() {
    // The longest names there may be.
    let material = Material::new(&"b".repeat(40), &"d".repeat(56), &"c".repeat(40));
    for mut sample in material.samples() {
        match &mut sample.payload.body {
            Body::Hello(hello) => {
                hello.agent = "x".repeat(64);
                hello.alert = Some("x".repeat(64));
            }
            Body::Status(status) => {
                status.detail = Some("x".repeat(256));
                status.alert = Some("x".repeat(64));
            }
            Body::Rejected(rejected) => rejected.message = "x".repeat(256),
            _ => {}
        }
        let size = material.seal(&sample).len();
        println!("{:20} {size}", sample.name);
        assert!(size < P256_BUDGET, "{} has {size} bytes", sample.name);
    }
}

#[test]
fn the_largest_bundle_of_p256_roots_fits_the_limit() {
    let material = Material::new("b", "d", "c");
    let mut sample = material.samples().into_iter().find(|s| s.name == "job-trust").unwrap();
    let Body::Job(job) = &mut sample.payload.body else {
        panic!("job-trust is a job")
    };
    let Task::Trust { anchors, .. } = &mut job.task else {
        panic!("job-trust is a trust job")
    };
    *anchors = vec![material.root.clone(); certwave_protocol::limits::MAX_ANCHORS];
    assert!(material.seal(&sample).len() < MAX_MESSAGE);
}

#[test]
fn rsa_4096_with_two_intermediates_fits_the_limit_well() {
    let mut material = Material::new("b", "d", "c");
    // No RSA-4096 certificate of ours is larger; the signature is 448 bytes longer than that of P-256.
    let certificate = Der(vec![0; 1800]);
    material.issuing = certificate.clone();
    let mut sample = material
        .samples()
        .into_iter()
        .find(|s| s.name == "certificate")
        .unwrap();
    let Body::Certificate(body) = &mut sample.payload.body else {
        panic!("certificate is a certificate")
    };
    body.leaf = certificate.clone();
    body.chain.push(certificate.clone());
    let x5c = vec![certificate; 3];
    let size = sign_down(&sample.payload, &material.control.key, &x5c).len() + 448 * 4 / 3;
    assert!(size < MAX_MESSAGE * 2 / 3, "{size}");
}
