//! A controller of a few lines: it enrols whoever asks and rotates each device once. It believes signatures unseen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certwave_protocol::envelope::{Unverified, sign_down};
use certwave_protocol::ids::{DeviceId, Fingerprint, JobId, Nonce};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::{Body, Certificate, Commit, Der, Job, Payload, Progress, Status, Subject, Task, Type};
use certwave_protocol::topic::{self, User};
use rcgen::ExtendedKeyUsagePurpose;
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, Transport};

use crate::broker::{Broker, Ca};

#[derive(Default)]
pub(crate) struct Known {
    job: Option<(JobId, Nonce)>,
    rotate: Option<JobId>,
    certificates: HashMap<Vec<u8>, Vec<u8>>,
    subject: Option<Subject>,
    pub(crate) statuses: Vec<Status>,
    pub(crate) hellos: u32,
}

pub(crate) type Devices = Arc<Mutex<HashMap<DeviceId, Known>>>;

/// Answers until it is dropped.
pub(crate) fn start(ca: &Arc<Ca>, broker: &Broker, trial_timeout: u32) -> (Devices, tokio::task::JoinHandle<()>) {
    let client = ca.leaf("~controller", ExtendedKeyUsagePurpose::ClientAuth);
    let control = ca.control("~control.b1");
    let mut options = MqttOptions::new("~controller", ("localhost", broker.device_port));
    options
        .set_max_packet_size(65536, 65536)
        .set_inflight(1000)
        .set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Simple {
            ca: ca.pem.clone().into_bytes(),
            alpn: None,
            client_auth: Some((client.pem.clone().into_bytes(), client.key.serialize_pem().into_bytes())),
        }));
    let (mqtt, mut events) = AsyncClient::builder(options).capacity(10_000).build();
    let devices = Devices::default();
    let state = Arc::clone(&devices);
    let ca = Arc::clone(ca);
    let key = SigningKey::from_pkcs8(control.key.serialized_der()).unwrap();
    let x5c = [Der(control.der)];
    let task = tokio::spawn(async move {
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => {
                    eprintln!("controller: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    mqtt.try_subscribe(topic::up_filter("certwave"), QoS::AtLeastOnce)
                        .unwrap();
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let name = std::str::from_utf8(&publish.topic).unwrap();
                    let (user, kind) = topic::parse_up("certwave", name).unwrap();
                    if kind == Type::Online {
                        continue;
                    }
                    let claimed = Unverified::parse(&publish.payload).unwrap().claimed().clone();
                    let mut all = state.lock().unwrap();
                    let known = all.entry(claimed.device.clone()).or_default();
                    for answer in answers(&ca, known, &claimed, trial_timeout) {
                        let name = topic::down("certwave", &user, answer.body.kind());
                        let message = sign_down(&answer, &key, &x5c);
                        mqtt.try_publish(name, message, PublishOptions::at_least_once())
                            .unwrap();
                    }
                    let _: User = user;
                }
                _ => {}
            }
        }
    });
    (devices, task)
}

fn answers(ca: &Ca, known: &mut Known, asked: &Payload, trial_timeout: u32) -> Vec<Payload> {
    let certificate = |known: &mut Known, csr: &[u8]| {
        let name = asked.device.as_str();
        let leaf = known
            .certificates
            .entry(csr.to_vec())
            .or_insert_with(|| ca.sign(csr, name))
            .clone();
        known.subject = Some(Subject::Certificate(Fingerprint::of(&leaf)));
        Body::Certificate(Certificate {
            leaf: Der(leaf),
            chain: Vec::new(),
            trial_timeout,
        })
    };
    let mut out = Vec::new();
    match &asked.body {
        Body::Enrol(enrol) => {
            known.job.get_or_insert_with(|| (uuid::Uuid::now_v7(), Nonce([7; 16])));
            out.push(certificate(known, enrol.csr.as_ref()));
        }
        Body::Csr(csr) => out.push(certificate(known, csr.csr.as_ref())),
        Body::Tested(tested) => {
            assert_eq!(Some(tested.subject), known.subject);
            out.push(Body::Commit(Commit {
                subject: tested.subject,
            }));
        }
        Body::Status(status) => known.statuses.push(status.clone()),
        Body::Hello(hello) => {
            known.hellos += 1;
            let done = hello.job.as_ref().is_none_or(|j| {
                matches!(
                    j.progress,
                    Progress::Committed | Progress::RolledBack | Progress::Failed
                )
            });
            if known.rotate.is_none() && done {
                let id = uuid::Uuid::now_v7();
                known.rotate = Some(id);
                known.job = Some((id, Nonce([9; 16])));
            }
            if known.rotate.is_some() && known.rotate == known.job.map(|j| j.0) {
                let ended = hello.job.as_ref().is_some_and(|j| Some(j.id) == known.rotate) && done;
                if !ended {
                    let task = Task::Rotate {
                        algorithms: vec!["ECDSA-P256".to_owned()],
                    };
                    out.push(Body::Job(Job {
                        task,
                        attempt: 1,
                        step_timeout: 30,
                        trial_timeout,
                    }));
                }
            }
        }
        _ => {}
    }
    let (job, nonce) = known.job.unzip();
    let payload = |body| Payload {
        v: 1,
        job,
        nonce,
        epoch: Some(5),
        body,
        ..asked.clone()
    };
    out.into_iter().map(payload).collect()
}
