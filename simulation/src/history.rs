//! What happened, line by line: the last lines for people, a hash of all of them to compare two runs by, and what must not have been.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::os;

/// Lines that are kept for people.
const KEPT: usize = 60;

/// See the module.
#[derive(Default)]
pub struct History(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last: VecDeque<String>,
    hash: u64,
    lines: u64,
    breaches: Vec<String>,
    aloud: bool,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub fn say(&self, what: impl AsRef<str>) {
        let millis = os::elapsed_ms();
        let line = format!("{:>6}.{:03} {}", millis / 1000, millis % 1000, what.as_ref());
        let mut inner = self.lock();
        // FNV-1a.
        let mut hash = if inner.lines == 0 {
            0xcbf2_9ce4_8422_2325
        } else {
            inner.hash
        };
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.hash = hash;
        inner.lines += 1;
        if inner.aloud {
            eprintln!("{line}");
        }
        inner.last.push_back(line);
        if inner.last.len() > KEPT {
            inner.last.pop_front();
        }
    }

    /// Something happened that must not.
    pub fn breach(&self, what: impl AsRef<str>) {
        self.say(format!("BREACH: {}", what.as_ref()));
        let mut inner = self.lock();
        if inner.breaches.len() < 20 {
            inner.breaches.push(what.as_ref().to_owned());
        }
    }

    /// Everything is printed from now on.
    pub fn aloud(&self) {
        self.lock().aloud = true;
    }

    /// What must not have been.
    pub fn breaches(&self) -> Vec<String> {
        self.lock().breaches.clone()
    }

    /// The last lines.
    pub fn last(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    /// A hash of all lines, and how many they are.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash, inner.lines)
    }
}
