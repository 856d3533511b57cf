//! The controller of such a world.

use certwave_agent::machine::Reference;
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, SessionId};
use certwave_protocol::message::{Body, Commit, Der, Job, Payload, Progress, Rejected, Step, Subject, Task};

use super::{World, certificate, job_id, rotate};

/// A controller that works through jobs: it remembers one, and answers as the ledger would.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    pub(crate) number: u64,
    /// Rotate, where there is none.
    task: Option<Task>,
    csr: Option<Der>,
    subject: Option<Subject>,
    committed: bool,
    ended: bool,
    pub(crate) confirmed: u32,
}

impl Controller {
    /// Starts the next job when the latest has ended.
    pub(crate) fn hear(&mut self, world: &World, body: &Body, about: Reference, session: SessionId) -> Vec<Payload> {
        let mut out = Vec::new();
        if about.job.is_some_and(|job| job != job_id(self.number)) {
            let message = String::new();
            let body = Rejected {
                of: body.kind(),
                code: Code::UnknownJob,
                message,
                job_state: None,
            };
            let payload = world.message(self.number, Body::Rejected(body));
            return vec![Payload {
                session,
                job: about.job,
                nonce: about.nonce,
                epoch: about.epoch,
                ..payload
            }];
        }
        let commit = |s: &Self| s.subject.map(|subject| Body::Commit(Commit { subject }));
        match body {
            Body::Enrol(enrol) => {
                if self.number == 0 || self.ended {
                    self.next();
                }
                self.csr.get_or_insert_with(|| enrol.csr.clone());
                out.extend(self.certificate());
            }
            Body::Csr(csr) if !self.ended => {
                self.csr.get_or_insert_with(|| csr.csr.clone());
                out.extend(self.certificate());
            }
            Body::Tested(tested) if self.subject == Some(tested.subject) && !self.ended => {
                self.committed = true;
                out.extend(commit(self));
            }
            Body::Status(status) => match status.step {
                Step::Committed => self.end(true),
                Step::Failed | Step::RolledBack | Step::Rejected => self.end(false),
                Step::Accepted => {}
            },
            Body::Hello(hello) => {
                let progress = hello
                    .job
                    .as_ref()
                    .filter(|j| j.id == job_id(self.number))
                    .map(|j| j.progress);
                match progress {
                    Some(Progress::Committed) => self.end(true),
                    Some(Progress::RolledBack | Progress::Failed) => self.end(false),
                    _ => {}
                }
                if self.ended || self.number == 0 {
                    self.next();
                    self.choose(world);
                    out.push(self.job());
                } else if self.committed {
                    out.extend(commit(self));
                } else if !matches!(progress, Some(Progress::Stored | Progress::Trial)) {
                    out.extend(self.certificate().or_else(|| Some(self.job())));
                }
            }
            _ => {}
        }
        out.into_iter()
            .map(|body| Payload {
                session,
                ..world.message(self.number, body)
            })
            .collect()
    }

    /// Every third job goes back, every fifth brings a bundle.
    fn choose(&mut self, world: &World) {
        let old = world
            .journal()
            .active
            .and_then(|slot| world.journal().held(slot.other()))
            .filter(|h| h.confirmed);
        if let (0, Some(old)) = (self.number % 3, old) {
            self.task = Some(Task::Rollback { to: old.leaf });
            self.subject = Some(Subject::Certificate(old.leaf));
        } else if self.number.is_multiple_of(5) {
            let anchors = vec![Der(self.number.to_be_bytes().to_vec())];
            let bundle = Fingerprint::of_bundle(&anchors);
            self.task = Some(Task::Trust { anchors, bundle });
            self.subject = Some(Subject::Bundle(bundle));
        }
    }

    fn job(&self) -> Body {
        match &self.task {
            Some(task) => Body::Job(Job {
                task: task.clone(),
                attempt: 1,
                step_timeout: 30,
                trial_timeout: 60,
            }),
            None => rotate(),
        }
    }

    fn certificate(&mut self) -> Option<Body> {
        let body = certificate(self.csr.as_ref()?);
        if let Body::Certificate(certificate) = &body {
            self.subject = Some(Subject::Certificate(Fingerprint::of(certificate.leaf.as_ref())));
        }
        Some(body)
    }

    fn end(&mut self, confirmed: bool) {
        if !std::mem::replace(&mut self.ended, true) && confirmed {
            self.confirmed += 1;
        }
    }

    fn next(&mut self) {
        *self = Self {
            number: self.number + 1,
            confirmed: self.confirmed,
            ..Self::default()
        };
    }
}
