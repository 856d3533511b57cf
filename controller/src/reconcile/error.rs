//! Why a reconcile did not end.

use certwave_ledger::LedgerError;

use crate::publish::CrlFault;

/// Why a reconcile has to be repeated. What a person must change is no error but a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// The ledger refused or could not answer.
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// A certificate or CRL could not be made.
    #[error("{what}: {why}")]
    Pki {
        /// What was to be made.
        what: &'static str,
        /// Why it could not.
        why: String,
        /// The cause's category.
        category: &'static str,
    },
    /// A strategy in the ledger cannot be read any more.
    #[error("the strategy in the ledger: {0}")]
    Strategy(String),
    /// A watch has ended; it never should.
    #[error("the watch of {0} has ended")]
    Ended(&'static str),
    /// A part of the reconcilers has panicked.
    #[error("a reconciler panicked: {0}")]
    Panicked(String),
}

/// What a reconcile answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A short word of a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(kube::Error::Api(status)) => match status.code {
                403 => "forbidden",
                409 => "conflict",
                429 => "too-many-requests",
                _ => "api",
            },
            Self::Api(_) => "api",
            Self::Ledger(error) => error.category(),
            Self::Pki { category, .. } => category,
            Self::Strategy(_) => "strategy",
            Self::Ended(_) => "watch-ended",
            Self::Panicked(_) => "panic",
        }
    }
}

impl From<CrlFault> for Error {
    fn from(fault: CrlFault) -> Self {
        match fault {
            CrlFault::Ledger(error) => Self::Ledger(error),
            other => Self::Pki {
                what: "CRL",
                why: other.to_string(),
                category: other.category(),
            },
        }
    }
}
