//! A connection that is worked on by whoever asks: no thread, and so the same order each time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::source::Source;
use crate::sql::Connection;
use crate::{LedgerError, Result, Way};

/// See the module.
pub(super) struct Direct {
    source: Mutex<Only>,
    pub(super) way: Arc<dyn Way>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

/// The connection; it is never lost.
pub(super) struct Only(Connection);

impl Source for Only {
    fn get(&mut self) -> Result<&Connection> {
        Ok(&self.0)
    }

    fn failed(&mut self, _: &LedgerError) -> bool {
        false
    }
}

impl Direct {
    pub(super) fn new(connection: Connection, way: Arc<dyn Way>) -> Self {
        Self {
            source: Mutex::new(Only(connection)),
            way,
        }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Only) -> T) -> T {
        work(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
