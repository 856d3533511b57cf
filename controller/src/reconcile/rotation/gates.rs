//! Asks the gates of running Rotations beside everything else, and remembers what they said of the present wave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use certwave_core::model::Millis;
use certwave_core::rollout::gate::{self, GateState, Verdict};
use certwave_core::rollout::run::Run;
use certwave_core::rollout::strategy::{Gate, Strategy};

use crate::gates::{Client, Online, Subject};
use crate::metrics::Metrics;

/// What was said, by Rotation.
pub(super) struct Gates {
    client: Client,
    metrics: Arc<Metrics>,
    books: Arc<Mutex<HashMap<String, Book>>>,
}

/// What was said of one wave, in one round of it: a breach answered by a person begins another.
#[derive(Default)]
struct Book {
    wave: u32,
    round: String,
    states: Vec<GateState>,
    asking: Vec<bool>,
}

fn asks_online(gate: &Gate) -> bool {
    gate.source.kind() == "online"
}

fn round(run: &Run) -> String {
    format!("{}/{}", run.resumed, run.retried)
}

impl Gates {
    pub(super) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            books: Arc::default(),
        }
    }

    /// What follows from what was said of the present wave.
    pub(super) fn verdicts(&self, uid: &str, strategy: &Strategy, run: &Run, now: Millis) -> Vec<Verdict> {
        let since = run.soak_since.unwrap_or(run.wave_since).min(now);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let book = books.entry(uid.to_owned()).or_default();
        if book.wave != run.wave || book.round != round(run) || book.states.len() != strategy.gates.len() {
            *book = Book {
                wave: run.wave,
                round: round(run),
                states: vec![GateState::default(); strategy.gates.len()],
                asking: vec![false; strategy.gates.len()],
            };
        }
        let judged = strategy.gates.iter().zip(&book.states);
        judged.map(|(gate, state)| gate::verdict(gate, state, since)).collect()
    }

    /// The same for whoever only looks: nothing begins anew.
    pub(super) fn last_verdicts(&self, uid: &str, strategy: &Strategy, run: &Run) -> Vec<Verdict> {
        let since = run.soak_since.unwrap_or(run.wave_since);
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let book = books.get(uid).filter(|book| book.wave == run.wave);
        let none = GateState::default();
        let states = book
            .into_iter()
            .flat_map(|book| &book.states)
            .chain(std::iter::repeat(&none));
        let judged = strategy.gates.iter().zip(states);
        judged.map(|(gate, state)| gate::verdict(gate, state, since)).collect()
    }

    /// Asks those whose time has come; the answers are there when the Rotation is judged next. While devices online are not
    /// known, nobody is asked for them.
    pub(super) fn ask(&self, uid: &str, strategy: &Strategy, subject: &Subject, online: Option<Online>, now: Millis) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(book) = books.get_mut(uid) else { return };
        for (number, gate) in strategy.gates.iter().enumerate() {
            let online = match online {
                None if asks_online(gate) => continue,
                known => known.unwrap_or(Online { before: None, now: 0 }),
            };
            let idle = book.asking.get(number) == Some(&false);
            if idle && book.states.get(number).is_some_and(|state| gate::due(gate, state, now)) {
                book.asking[number] = true;
                self.ask_one((uid, &book.round), number, gate.clone(), subject.clone(), online);
            }
        }
    }

    fn ask_one(&self, of: (&str, &str), number: usize, gate: Gate, subject: Subject, online: Online) {
        let (client, metrics) = (self.client.clone(), Arc::clone(&self.metrics));
        let (books, uid, round) = (Arc::clone(&self.books), of.0.to_owned(), of.1.to_owned());
        tokio::spawn(async move {
            let answer = client.ask(&gate, &subject, online).await;
            let labels = [
                subject.namespace.as_str(),
                subject.fleet.as_str(),
                gate.source.kind(),
                answer.kind(),
            ];
            metrics.rotations.gate_answers.with_label_values(&labels).inc();
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            // An answer about what was before must not be taken for one about what is.
            let book = books
                .get_mut(&uid)
                .filter(|book| book.wave == subject.wave && book.round == round);
            if let Some(book) = book
                && let Some(state) = book.states.get_mut(number)
            {
                gate::observe(state, crate::reconcile::time::now_ms(), answer);
                book.asking[number] = false;
            }
        });
    }

    /// Whether any gate asks for the number of devices online.
    pub(super) fn count_online(strategy: &Strategy) -> bool {
        strategy.gates.iter().any(asks_online)
    }

    pub(super) fn forget(&self, uid: &str) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
