//! Where a thread gets its connection from.

use crate::sql::Connection;
use crate::{LedgerError, Result};

/// A thread's connection.
pub(crate) trait Source: Send + 'static {
    /// It, made anew if it was lost.
    fn get(&mut self) -> Result<&Connection>;

    /// A transaction has failed. Answers whether [`get`](Self::get) gives another connection now.
    fn failed(&mut self, error: &LedgerError) -> bool;
}

/// Begins a transaction, on another connection where the first one turns out to be lost: nothing was done on it yet.
pub(super) fn begin(
    source: &mut impl Source,
    how: impl Fn(&Connection) -> crate::sql::Result<()>,
) -> Result<&Connection> {
    let begin = |source: &mut _| -> Result<()> { Ok(how(Source::get(source)?)?) };
    if let Err(error) = begin(source) {
        if !source.failed(&error) {
            return Err(error);
        }
        begin(source)?;
    }
    source.get()
}
