//! What a real broker says to a credential that it does not take, and what a device makes of it.

use std::sync::Arc;

use certwave_agent::machine::Failure;
use certwave_agent::mqtt::{Address, Session, Target, tls_config};
use certwave_agent::trust::{Clock, Trust};
use certwave_protocol::ids::Nonce;
use certwave_protocol::message::Der;
use certwave_protocol::topic::User;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::broker::{Broker, Ca, Leaf};

fn target(ca: &Ca, leaf: &Leaf, port: u16, now: i64) -> Target {
    let root = CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
    let trust = Arc::new(Trust::new(&[Der(root.to_vec())]).unwrap());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.serialized_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let chain = vec![CertificateDer::from(leaf.der.clone())];
    Target {
        address: Address {
            host: "localhost".to_owned(),
            port,
        },
        client_id: "meter-1".to_owned(),
        user: User::Device("meter-1".parse().unwrap()),
        prefix: "certwave".to_owned(),
        session: Nonce([1; 16]),
        keep_alive: 60,
        tls: Arc::new(tls_config(chain, key, &trust, Clock { now, floor: 0 }).unwrap()),
    }
}

async fn knock(target: Target) -> Option<Failure> {
    Session::connect(target).await.err().map(|e| e.failure)
}

#[tokio::test]
async fn refusals_are_told_apart_and_alerts_have_the_names_of_rfc_8446() {
    const NOW: i64 = 1_800_000_000;
    let (ca, stranger) = (Ca::new("root"), Ca::new("other"));
    let Some(broker) = Broker::start(&ca) else { return };
    let port = broker.device_port;
    let own = ca.leaf("meter-1", ClientAuth);

    assert_eq!(knock(target(&ca, &own, port, NOW)).await, None);
    let refused = |alert: &str| Some(Failure::Refused(Some(alert.to_owned())));
    let foreign = stranger.leaf("meter-1", ClientAuth);
    assert_eq!(knock(target(&ca, &foreign, port, NOW)).await, refused("unknown_ca"));
    let expired = ca.expired("meter-1");
    assert_eq!(
        knock(target(&ca, &expired, port, NOW)).await,
        refused("certificate_expired")
    );

    assert_eq!(
        knock(target(&stranger, &own, port, NOW)).await,
        Some(Failure::Untrusted)
    );
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(knock(target(&ca, &own, nowhere, NOW)).await, Some(Failure::Unreachable));
    // Neither the century nor the clock's beginning keeps a device from its broker.
    for now in [0, NOW + 5000 * 365 * 86_400] {
        assert_eq!(knock(target(&ca, &own, port, now)).await, None, "clock {now}");
    }
}
