//! Gates against what is out there: a real Prometheus, and servers with certificates of trusted and of unknown CAs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use certwave_controller::gates::{Client, Online, Subject};
use certwave_core::rollout::gate::{Answer, GateState, Verdict, due, observe, verdict};
use certwave_core::rollout::run::WaveCounts;
use certwave_core::rollout::strategy::{Gate, GateSource};
use certwave_e2e::identity::Authority;
use certwave_e2e::prometheus::Prometheus;
use certwave_e2e::wait_for;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn gate(source: GateSource) -> Gate {
    Gate {
        source,
        every: 1000,
        failure_limit: 0,
        error_limit: 1,
    }
}

fn query(url: &str, query: &str, above: &str) -> Gate {
    gate(GateSource::Prometheus {
        url: url.to_owned(),
        query: query.to_owned(),
        above: Some(above.to_owned()),
        below: None,
    })
}

async fn ask(client: &Client, gate: &Gate) -> Answer {
    let subject = Subject {
        namespace: "plant".to_owned(),
        rotation: "meters-1".to_owned(),
        fleet: "meters".to_owned(),
        wave: 0,
        wave_name: "canary".to_owned(),
        counts: WaveCounts::default(),
    };
    let online = Online { before: None, now: 0 };
    client.ask(gate, &subject, online).await
}

/// A client that trusts the CAs in `pem`, and nobody else.
fn trusting(pem: &str) -> Client {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    Client::with_roots(roots).unwrap()
}

#[tokio::test]
async fn a_real_prometheus_answers_gates() {
    let mut prometheus = Prometheus::run().await.unwrap();
    let url = prometheus.url();
    let client = trusting("");
    let up = query(&url, "up{job=\"self\"}", "0.5");
    let scraped = wait_for(
        "Prometheus to scrape both its targets",
        Duration::from_secs(30),
        || async {
            let absent = ask(&client, &query(&url, "count(up)", "1")).await;
            match (ask(&client, &up).await, absent) {
                (Answer::Well(_), Answer::Well(_)) => Ok(()),
                missing => bail!("{missing:?}"),
            }
        },
    );
    scraped.await.unwrap();

    let host = prometheus.address().to_string();
    let well = |text: &str| Answer::Well(format!("{host}: {text}"));
    let bad = |text: &str| Answer::Bad(format!("{host}: {text}"));
    assert_eq!(ask(&client, &up).await, well("1 is above 0.5"));
    for (expression, expected) in [
        ("up{job=\"absent\"}", bad("0 is not above 0.5")),
        ("scalar(up{job=\"self\"})", well("1 is above 0.5")),
        // A query longer than servers take in a URL, with characters that must be encoded.
        (
            &format!("1 + 0 * up{{job=~\"s.lf|&=+%|{}\"}}", "x".repeat(40_000)),
            well("1 is above 0.5"),
        ),
    ] {
        let shown = &expression[..expression.len().min(60)];
        assert_eq!(ask(&client, &query(&url, expression, "0.5")).await, expected, "{shown}");
    }
    for (expression, words) in [
        ("up", "2 results"),
        ("up{job=\"nobody\"}", "no result"),
        ("0 / 0", "NaN"),
        ("1 / 0", "infinite"),
        ("up[1m]", "matrix"),
        ("\"text\"", "string"),
        ("up{", "HTTP status 400): bad_data"),
    ] {
        let answer = ask(&client, &query(&url, expression, "0.5")).await;
        let Answer::Unknown(detail) = &answer else {
            panic!("{expression}: {answer:?}");
        };
        assert!(detail.contains(words), "{expression}: {detail}");
    }

    // It goes away and comes back: the wave waits, and nobody is charged.
    let mut state = GateState::default();
    let mut now = 0;
    let mut step = async |state: &mut GateState| {
        now += up.every;
        assert!(due(&up, state, now));
        observe(state, now, ask(&client, &up).await);
        verdict(&up, state, now)
    };
    assert_eq!(step(&mut state).await, Verdict::Well);
    prometheus.stop().unwrap();
    assert_eq!(
        step(&mut state).await,
        Verdict::Pending,
        "one failure is within the limit, but passes nothing"
    );
    let down = step(&mut state).await;
    assert!(
        matches!(&down, Verdict::Unknown(why) if why.contains("refused")),
        "{down:?}"
    );
    prometheus.start().await.unwrap();
    let back = wait_for("the gate to be well again", Duration::from_secs(30), || {
        let asked = ask(&client, &up);
        async {
            match asked.await {
                Answer::Well(_) => Ok(()),
                answer => bail!("{answer:?}"),
            }
        }
    });
    back.await.unwrap();
    assert_eq!(step(&mut state).await, Verdict::Well);
    assert_eq!(state.bad, 0);
}

#[tokio::test]
async fn a_gate_over_https_is_asked_only_when_its_ca_is_trusted() {
    let ours = Authority::new("ours").unwrap();
    let theirs = Authority::new("theirs").unwrap();
    let address = https_webhook(&ours).await.unwrap();
    let hook = gate(GateSource::Webhook {
        url: format!("https://{address}/gate"),
        timeout: 10_000,
    });
    let unknown_ca = ask(&trusting(&theirs.certificate()), &hook).await;
    assert!(
        matches!(&unknown_ca, Answer::Unknown(why) if why.contains("certificate")),
        "{unknown_ca:?}"
    );
    let trusted = ask(&trusting(&ours.certificate()), &hook).await;
    assert_eq!(trusted, Answer::Well(format!("{address}: passed")));
}

/// A webhook that always passes, with a certificate of `authority`.
async fn https_webhook(authority: &Authority) -> Result<SocketAddr> {
    let identity = authority.server("webhook")?;
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us ends the handshake; the next one may.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = "{\"passed\": true}";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    Ok(address)
}
