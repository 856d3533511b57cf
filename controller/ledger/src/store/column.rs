//! Between the database's values and ours.

use std::str::FromStr;

use certwave_core::model::{Identity, JobState, ObjectRef};
use certwave_core::retire::{Phase, Why};
use certwave_core::revocation::Bar;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sql::{Error, FromSql, Row};
use crate::{CertificateKind, FleetKey, LedgerError, MemberOutcome, Result, RotationOutcome};

/// An unsigned value as the databases store it.
pub(super) fn int(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| LedgerError::Invalid(format!("{value} is too great to be stored")))
}

/// A value as JSON.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| LedgerError::Invalid(e.to_string()))
}

/// A count as we know it.
pub(super) fn count(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| LedgerError::Invalid("too many".to_owned()))
}

/// A row read from left to right.
pub(super) struct Columns<'r> {
    row: Row<'r>,
    next: usize,
}

type Read<T> = crate::sql::Result<T>;

impl<'r> Columns<'r> {
    pub(super) fn of(row: &Row<'r>) -> Self {
        Self { row: *row, next: 0 }
    }

    /// The next column as the databases know it.
    pub(super) fn get<T: FromSql>(&mut self) -> Read<T> {
        let index = self.next;
        self.next += 1;
        self.row.get(index)
    }

    pub(super) fn skip(&mut self, columns: usize) {
        self.next += columns;
    }

    pub(super) fn unsigned(&mut self) -> Read<u64> {
        let index = self.next;
        let value: i64 = self.get()?;
        u64::try_from(value).map_err(|_| Error::column(index, format!("{value} is negative")))
    }

    pub(super) fn optional_text<T>(&mut self) -> Read<Option<T>>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let index = self.next;
        let text: Option<String> = self.get()?;
        text.map(|t| t.parse()).transpose().map_err(|e| Error::column(index, e))
    }

    pub(super) fn text<T>(&mut self) -> Read<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let index = self.next;
        self.optional_text()?
            .ok_or_else(|| Error::column(index, "text is missing"))
    }

    /// A word of a closed set.
    pub(super) fn word<T: Word>(&mut self) -> Read<T> {
        Ok(self.text::<Named<T>>()?.0)
    }

    pub(super) fn optional_word<T: Word>(&mut self) -> Read<Option<T>> {
        Ok(self.optional_text::<Named<T>>()?.map(|n| n.0))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Read<T> {
        let index = self.next;
        let text: String = self.get()?;
        serde_json::from_str(&text).map_err(|e| Error::column(index, e))
    }

    pub(super) fn optional_json<T: DeserializeOwned>(&mut self) -> Read<Option<T>> {
        let index = self.next;
        let text: Option<String> = self.get()?;
        text.map(|t| serde_json::from_str(&t))
            .transpose()
            .map_err(|e| Error::column(index, e))
    }

    pub(super) fn fingerprint(&mut self) -> Read<Fingerprint> {
        self.get().map(Fingerprint)
    }

    pub(super) fn optional_fingerprint(&mut self) -> Read<Option<Fingerprint>> {
        Ok(self.get::<Option<[u8; 32]>>()?.map(Fingerprint))
    }

    pub(super) fn nonce(&mut self) -> Read<Nonce> {
        self.get().map(Nonce)
    }

    pub(super) fn optional_nonce(&mut self) -> Read<Option<Nonce>> {
        Ok(self.get::<Option<[u8; 16]>>()?.map(Nonce))
    }

    pub(super) fn job_id(&mut self) -> Read<JobId> {
        self.get().map(JobId::from_bytes)
    }

    pub(super) fn optional_job_id(&mut self) -> Read<Option<JobId>> {
        Ok(self.get::<Option<[u8; 16]>>()?.map(JobId::from_bytes))
    }

    pub(super) fn identity(&mut self) -> Read<Identity> {
        Ok(Identity {
            broker: self.text()?,
            device: self.text()?,
        })
    }

    pub(super) fn optional_identity(&mut self) -> Read<Option<Identity>> {
        Ok(self
            .optional_text()?
            .zip(self.optional_text()?)
            .map(|(broker, device)| Identity { broker, device }))
    }

    pub(super) fn object(&mut self) -> Read<ObjectRef> {
        Ok(ObjectRef {
            namespace: self.get()?,
            name: self.get()?,
        })
    }

    pub(super) fn fleet(&mut self) -> Read<FleetKey> {
        Ok(FleetKey {
            namespace: self.get()?,
            name: self.get()?,
        })
    }
}

/// A closed set of values that are stored by name.
pub(super) trait Word: Copy + 'static {
    const ALL: &'static [Self];
    fn word(self) -> &'static str;
}

/// A stored name that this program does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not known")]
pub(super) struct Unknown(String);

struct Named<T>(T);

impl<T: Word> FromStr for Named<T> {
    type Err = Unknown;
    fn from_str(text: &str) -> std::result::Result<Self, Unknown> {
        let found = T::ALL.iter().find(|v| v.word() == text);
        found.map(|v| Self(*v)).ok_or_else(|| Unknown(text.to_owned()))
    }
}

impl Word for JobState {
    const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Sent,
        Self::Accepted,
        Self::Issued,
        Self::Committing,
        Self::Confirmed,
        Self::Rejected,
        Self::Failed,
        Self::TimedOut,
        Self::RolledBack,
        Self::Cancelled,
        Self::Lost,
    ];
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for Phase {
    const ALL: &'static [Self] = &Self::ALL;
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for Why {
    const ALL: &'static [Self] = &Self::ALL;
    fn word(self) -> &'static str {
        self.as_str()
    }
}

macro_rules! words {
    ($type:ident: $($value:ident)*) => {
        impl Word for $type {
            const ALL: &'static [Self] = &[$(Self::$value),*];
            fn word(self) -> &'static str {
                match self { $(Self::$value => stringify!($value)),* }
            }
        }
    };
}
words!(CertificateKind: Device Claim Controller Control Server OcspSigner Authority);
words!(Bar: Held Revoked);
words!(RotationOutcome: Succeeded Failed Cancelled);
words!(MemberOutcome: Planned Running Confirmed Rejected Failed TimedOut RolledBack Lost Skipped Reverting Reverted Unreverted
    ProbationFailed);
