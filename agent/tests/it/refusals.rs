//! Each message that must change nothing.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, Nonce};
use certwave_protocol::message::{Body, Commit, Der, Payload, Slot, Subject, Task};

use crate::machine::{accepted, commit, task, tested};
use crate::world::{World, certificate, job_id, rotate};

type Change = fn(&mut Payload);
type Make = Box<dyn Fn(&World) -> Payload>;
/// What is wrong, with a device in which state, the message, the code.
type Case = (&'static str, fn() -> World, Make, Code);

#[test]
fn each_wrong_message_changes_nothing_and_is_named() {
    let wrong_bundle = task(Task::Trust {
        anchors: vec![Der(vec![1])],
        bundle: Fingerprint([3; 32]),
    });
    let with = |body: Body, change: Change| {
        move |world: &World| {
            let mut payload = world.message(1, body.clone());
            change(&mut payload);
            payload
        }
    };
    let cases: Vec<Case> = vec![
        (
            "broker",
            accepted,
            Box::new(with(rotate(), |p| p.broker = "b2".parse().unwrap())),
            Code::WrongBroker,
        ),
        (
            "device",
            accepted,
            Box::new(with(rotate(), |p| p.device = "sim-0002".parse().unwrap())),
            Code::WrongDevice,
        ),
        (
            "session",
            accepted,
            Box::new(with(rotate(), |p| p.session = Nonce([99; 16]))),
            Code::WrongSession,
        ),
        (
            "version",
            accepted,
            Box::new(with(rotate(), |p| p.v = 2)),
            Code::UnsupportedVersion,
        ),
        (
            "epoch of a job again",
            accepted,
            Box::new(with(rotate(), |p| p.epoch = Some(4))),
            Code::WrongEpoch,
        ),
        (
            "nonce of a job again",
            accepted,
            Box::new(with(rotate(), |p| p.nonce = Some(Nonce([1; 16])))),
            Code::WrongNonce,
        ),
        (
            "an older job",
            accepted,
            Box::new(with(rotate(), |p| p.job = Some(job_id(0)))),
            Code::UnknownJob,
        ),
        (
            "no epoch",
            accepted,
            Box::new(with(rotate(), |p| p.epoch = None)),
            Code::Malformed,
        ),
        (
            "a later job on trial",
            tested,
            Box::new(with(rotate(), |p| p.job = Some(job_id(2)))),
            Code::Busy,
        ),
        (
            "kind of job",
            World::enrolled,
            Box::new(with(task(Task::Unknown), |_| ())),
            Code::UnknownType,
        ),
        (
            "algorithms",
            World::enrolled,
            Box::new(with(
                task(Task::Rotate {
                    algorithms: vec!["ROT-13".to_owned()],
                }),
                |_| (),
            )),
            Code::Unsupported,
        ),
        (
            "rollback to nowhere",
            World::enrolled,
            Box::new(with(
                task(Task::Rollback {
                    to: Fingerprint([8; 32]),
                }),
                |_| (),
            )),
            Code::RollbackImpossible,
        ),
        (
            "bundle",
            World::enrolled,
            Box::new(with(wrong_bundle, |_| ())),
            Code::Malformed,
        ),
        (
            "certificate of no job",
            World::enrolled,
            Box::new(with(certificate(&Der(vec![0; 5])), |_| ())),
            Code::UnknownJob,
        ),
        (
            "certificate, epoch",
            accepted,
            Box::new(with(certificate(&Der(vec![0; 5])), |p| p.epoch = Some(4))),
            Code::WrongEpoch,
        ),
        (
            "certificate, nonce",
            accepted,
            Box::new(with(certificate(&Der(vec![0; 5])), |p| p.nonce = Some(Nonce([1; 16])))),
            Code::WrongNonce,
        ),
        (
            "commit before any test",
            accepted,
            Box::new(|w| {
                let subject = Subject::Certificate(w.journal().held(Slot::A).unwrap().leaf);
                w.message(1, Body::Commit(Commit { subject }))
            }),
            Code::OutOfOrder,
        ),
        (
            "commit of another certificate",
            tested,
            Box::new(|w| {
                let subject = Subject::Certificate(w.journal().held(Slot::A).unwrap().leaf);
                w.message(1, Body::Commit(Commit { subject }))
            }),
            Code::CommitImpossible,
        ),
        (
            "commit, nonce",
            tested,
            Box::new(|w| Payload {
                nonce: Some(Nonce([1; 16])),
                ..w.message(1, commit(w))
            }),
            Code::WrongNonce,
        ),
        (
            "commit of another job",
            tested,
            Box::new(|w| Payload {
                job: Some(job_id(2)),
                ..w.message(1, commit(w))
            }),
            Code::UnknownJob,
        ),
        (
            "commit of the last connection",
            tested,
            Box::new(|w| Payload {
                session: Nonce([1; 16]),
                ..w.message(1, commit(w))
            }),
            Code::WrongSession,
        ),
        (
            "a device's message",
            accepted,
            Box::new(with(
                Body::Tested(certwave_protocol::message::Tested {
                    subject: Subject::Certificate(Fingerprint([0; 32])),
                }),
                |_| (),
            )),
            Code::UnknownType,
        ),
    ];
    for (name, start, make, code) in cases {
        let mut world = start();
        let before = world.journal().clone();
        let payload = make(&world);
        world.down(payload);
        assert_eq!(world.ignored(), Some(code), "{name}");
        assert_eq!(*world.journal(), before, "{name}");
    }
}
