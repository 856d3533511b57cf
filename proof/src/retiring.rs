//! What the engine does about the retirement of an old certificate.

use certwave_core::retire::{self, Act, Admission, Heard, Retirement, Seen, Speaker};

use crate::breach::Breach;
use crate::controller::Engine;
use crate::ledger::{Marks, Retiring};
use crate::message::Told;
use crate::symbols::{self, Leaf, NOW, PRESENT};

const PROBATION: i64 = 100;

/// One look at a retirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    /// Nothing but its turn or the door's word moves it.
    Now,
    /// Half of the probation time is over.
    Half,
    /// It is over, and the device could have been heard.
    Over,
    /// It is over, and the device could not have been heard.
    Broken,
}

impl Engine<'_> {
    fn seen(&self, retirement: &Retirement) -> Seen {
        let device = &self.ledger.device;
        let working = retire::working(device);
        let old = self.ledger.marks(symbols::leaf(&retirement.old));
        Seen {
            current: device.current.as_ref().map(|c| c.fingerprint),
            current_good: self.ledger.marks(symbols::leaf(&retirement.new)).good(),
            old_ended: old.revoked || old.person,
            barred: device.bar.is_some(),
            declared: true,
            working,
            wanted: device.open_job().is_some() && !working,
            online: true,
        }
    }

    /// Looks at the retirement.
    pub fn look(&mut self, look: Look) {
        let Some(Retiring(retirement)) = self.ledger.retirement.clone() else {
            return;
        };
        let passed = match look {
            Look::Now => 0,
            Look::Half => PROBATION / 2,
            Look::Over | Look::Broken => PROBATION,
        };
        let old = symbols::leaf(&retirement.old);
        let attempt = u8::try_from(retirement.attempt).unwrap_or(7);
        let event = retire::Event::Look {
            seen: self.seen(&retirement),
            admission: Admission::Now,
            loaded: self.shut.contains(&old) && *self.shut == self.ledger.shut(),
            waited: self.ledger.watched.then_some(passed),
            heard: if look == Look::Broken {
                Heard::Broken
            } else {
                Heard::Whole
            },
            nonce: symbols::nonce(0x40 | (symbols::job_number(retirement.job) << 3) | attempt),
        };
        self.take(&retirement, &event, passed);
    }

    /// The device has said hello, signed by this certificate's key.
    pub(crate) fn came_back(&mut self, signed: Leaf, echo: Option<u8>) {
        let Some(Retiring(retirement)) = self.ledger.retirement.clone() else {
            return;
        };
        let of = symbols::fingerprint(signed);
        let speaker = match of {
            key if key == retirement.new => Speaker::New,
            key if key == retirement.old => Speaker::Old,
            _ => return,
        };
        if !retirement.phase.holds() {
            return;
        }
        let event = retire::Event::Hello {
            seen: self.seen(&retirement),
            speaker,
            echo: echo.map(symbols::nonce),
        };
        self.take(&retirement, &event, 0);
    }

    fn take(&mut self, before: &Retirement, event: &retire::Event, passed: i64) {
        let policy = retire::Policy { probation: PROBATION };
        let event = match self.mutant {
            Some(mutant) => mutant.seen(before, *event),
            None => *event,
        };
        let mut decision = retire::step(NOW + passed, before, &event, policy);
        if let Some(mutant) = self.mutant {
            mutant.retired(&mut decision);
        }
        match decision {
            retire::Decision::Stay => {}
            retire::Decision::Ask => self.ask(before),
            retire::Decision::Change { mut next, act, ask } => {
                if self.deposed() {
                    return;
                }
                let entered = next.phase != before.phase;
                // The clock stands still.
                let shift = next.since - NOW;
                next.since = NOW;
                next.wake = next.wake.map(|wake| {
                    if next.phase == retire::Phase::Waiting {
                        NOW
                    } else {
                        wake - shift
                    }
                });
                if let Some(act) = act {
                    self.mark(before, act);
                }
                if entered {
                    self.ledger.watched = true;
                }
                if ask {
                    self.ask(&next);
                }
                self.ledger.retirement = (!next.phase.ended()).then_some(Retiring(next));
            }
        }
    }

    pub(crate) fn mark(&mut self, retirement: &Retirement, act: Act) {
        let old = symbols::leaf(&retirement.old);
        let marks = self.ledger.issued.entry(old).or_default();
        match act {
            Act::Hold => {
                marks.retiring = true;
                *self.came_in = false;
            }
            Act::Release => marks.retiring = false,
            Act::Revoke => {
                *marks = Marks {
                    retiring: false,
                    revoked: true,
                    ..*marks
                };
                if !*self.came_in {
                    self.wrong(Breach::RevokedUnproven);
                }
                self.forget_previous(old);
            }
        }
    }

    fn ask(&mut self, retirement: &Retirement) {
        let Some(nonce) = retirement.nonce else { return };
        if let Some(session) = self.ledger.device.session {
            self.say(Told::Reconnect(nonce.0[0]), session == PRESENT, None);
        }
    }
}
