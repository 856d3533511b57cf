//! Somebody who looks at the CRLs all the time, as a relying party would, whoever serves them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use certwave_controller::companion::{Index, IndexEntry};
use certwave_crds::CertificateAuthority;
use certwave_pki::crl::{Crl, Mark, Reason};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::task::AbortHandle;

use super::history::{Millis, now};
use crate::stack::{Stack, objects};
use crate::witness::Witness;
use crate::{http, lasting};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(50);
/// Contradictions that are kept.
const KEPT: usize = 10;

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    different: usize,
    looks: usize,
    contradictions: Vec<String>,
    /// Serial numbers that are revoked for good, by when that was first seen.
    revoked: BTreeMap<String, Millis>,
}

impl Seen {
    fn contradict(&mut self, error: &anyhow::Error) {
        if self.contradictions.len() < KEPT {
            self.contradictions.push(format!("{error:#}"));
        }
    }

    fn note(&mut self, pem: &str) -> Result<()> {
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes())?;
        for entry in Crl::parse(&der)?.entries() {
            if !matches!(entry.mark, Mark::Revoked(Reason::CertificateHold) | Mark::Removed) {
                self.revoked.entry(entry.serial.to_string()).or_insert_with(now);
            }
        }
        Ok(())
    }
}

/// See the module; it ends when it is dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    looking: AbortHandle,
}

impl Watch {
    /// Begins to look at the CRLs of this issuer, by its key id: of each partition from when it is named for the first time.
    pub(super) fn begin(at: SocketAddr, issuer: String) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = Arc::clone(&seen);
        let looking = lasting::runtime().spawn(async move {
            let mut witness = Witness::default();
            let mut scopes = BTreeSet::new();
            loop {
                match served(at, &issuer).await {
                    Ok(named) => scopes.extend(named),
                    Err(error) => lock(&told).contradict(&error),
                }
                for scope in &scopes {
                    let before = witness.seen();
                    let looked = witness.look(at, scope).await;
                    let mut told = lock(&told);
                    told.different = witness.seen();
                    let noted = looked.and_then(|number| {
                        told.looks += usize::from(number.is_some());
                        let new = number.filter(|_| witness.seen() > before);
                        let list = new.and_then(|number| witness.content(scope, number));
                        list.map_or(Ok(()), |list| told.note(list))
                    });
                    if let Err(error) = noted {
                        told.contradict(&error);
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self {
            seen,
            looking: looking.abort_handle(),
        }
    }

    /// How many different CRLs were seen, in how many looks.
    pub(super) fn seen(&self) -> (usize, usize) {
        let seen = lock(&self.seen);
        (seen.different, seen.looks)
    }

    /// Serial numbers that were revoked for good, by when that was first seen.
    pub(super) fn revoked(&self) -> BTreeMap<String, Millis> {
        lock(&self.seen).revoked.clone()
    }

    /// CRLs that contradict what was seen before.
    pub(super) fn contradictions(&self) -> Vec<String> {
        lock(&self.seen).contradictions.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// The key id of a stack's CA.
///
/// # Errors
/// When the CA shows none.
pub(super) async fn key_id(stack: &Stack) -> Result<String> {
    let ca: CertificateAuthority = stack.objects().get(objects::CA).await?;
    let status = ca.status.context("the CA has no status")?;
    status.key_id.context("the CA has no key")
}

/// The scopes (`issuer/partition`) that are served of an issuer; none where nobody serves.
async fn served(at: SocketAddr, issuer: &str) -> Result<Vec<String>> {
    let Ok((200, text)) = http::get(at, &format!("/crl/{issuer}/index.json")).await else {
        return Ok(Vec::new());
    };
    let index: Index = serde_json::from_str(&text).context("an index that cannot be read")?;
    let scope = |entry: IndexEntry| format!("{issuer}/{}", entry.partition);
    Ok(index.crls.into_iter().map(scope).collect())
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
