//! From what is served to what is in the file.

use std::collections::{BTreeMap, BTreeSet};

use certwave_core::door::Scope;
use certwave_pki::{certificates_from_pem, parse_certificate_info};

use super::accept::{Held, accept};
use super::fetch::{FetchError, Fetcher};
use super::{CompanionError, Options, crl_file};
use crate::clock;
use crate::publish::end_of;

/// A CRL is fetched anew when a quarter of its validity, but at most an hour, is left, even if the index says nothing of a new one.
const NEAR_END: i64 = 3600;

/// Keeps the file.
pub(super) struct Sync {
    options: Options,
    fetcher: Fetcher,
    /// What is in the file.
    held: BTreeMap<Scope, Held>,
    /// CAs of which nothing is published where CRLs are fetched: roots kept elsewhere, that issue to no device, are well so.
    absent: BTreeSet<String>,
    /// The file was read.
    begun: bool,
}

impl Sync {
    pub(super) fn new(options: Options) -> Result<Self, CompanionError> {
        let base = options.fetch_url.as_ref().unwrap_or(&options.base_url);
        Ok(Self {
            fetcher: Fetcher::new(base, options.max_bytes)?,
            options,
            held: BTreeMap::new(),
            absent: BTreeSet::new(),
            begun: false,
        })
    }

    /// What is in the file.
    pub(super) const fn held(&self) -> &BTreeMap<Scope, Held> {
        &self.held
    }

    /// What to tell of CAs without CRLs, which may be as it should be.
    pub(super) fn note(&self) -> Option<String> {
        self.absent.first().map(|issuer| unpublished(issuer))
    }

    /// The numbers of those in the file.
    pub(super) fn numbers(&self) -> BTreeMap<Scope, u64> {
        let numbers = self.held.iter().map(|(scope, held)| (scope.clone(), held.number));
        numbers.collect()
    }

    /// Fetches what is new; answers whether the file was replaced, and what is not as it should be. What is wrong with one scope
    /// keeps no other from being renewed.
    pub(super) async fn run(&mut self) -> Result<(bool, Option<String>), CompanionError> {
        let cas = self.cas()?;
        if !self.begun {
            self.begin(&cas)?;
        }
        let (mut next, mut faults, mut absent) = (self.held.clone(), Vec::new(), BTreeSet::new());
        let now = clock::now() / 1000;
        for (issuer, ca) in &cas {
            let index = match self.fetcher.index(issuer).await {
                Ok(index) => index.crls,
                Err(FetchError::Status { status: 404, .. }) => {
                    absent.insert(issuer.clone());
                    continue;
                }
                Err(error) => {
                    faults.push(error.to_string());
                    continue;
                }
            };
            for entry in index.iter().filter(|entry| is_alive(&entry.partition, now)) {
                let scope = (issuer.clone(), entry.partition.clone());
                let held = next.get(&scope);
                if held.is_some_and(|held| held.number >= entry.number && !near_end(held, now)) {
                    continue;
                }
                match self.fetch(&scope, ca, held, now).await {
                    Ok(new) => {
                        next.insert(scope, new);
                    }
                    Err(fault) => faults.push(format!("the CRL of {issuer}/{}: {fault}", entry.partition)),
                }
            }
        }
        for issuer in absent.difference(&self.absent) {
            tracing::warn!(issuer, "{}", unpublished(issuer));
        }
        self.absent = absent;
        self.drop_ended(&mut next, &cas, now, &mut faults);
        let changed = next != self.held;
        if changed {
            crl_file::write(&self.options.crl_file, &next)?;
            self.held = next;
        }
        Ok((changed, faults.into_iter().next()))
    }

    async fn fetch(&self, scope: &Scope, ca: &[u8], held: Option<&Held>, now: i64) -> Result<Held, String> {
        let der = self
            .fetcher
            .crl(&scope.0, &scope.1)
            .await
            .map_err(|error| error.to_string())?;
        accept(der, ca, &self.url(scope), held, now).map_err(|error| format!("refused: {error}"))
    }

    /// Takes over what the file has, as far as it would be taken now: the numbers of before hold over a restart.
    fn begin(&mut self, cas: &BTreeMap<String, Vec<u8>>) -> Result<(), CompanionError> {
        for (scope, der) in crl_file::read(&self.options.crl_file)? {
            let Some(ca) = cas.get(&scope.0) else { continue };
            match accept(der, ca, &self.url(&scope), self.held.get(&scope), clock::now() / 1000) {
                Ok(held) => {
                    self.held.insert(scope, held);
                }
                Err(error) => tracing::warn!(issuer = scope.0, partition = scope.1, %error, "not kept"),
            }
        }
        self.begun = true;
        Ok(())
    }

    /// Takes out what must not be in the file: CRLs of CAs that are no longer trusted, and those that have expired. Devices of a
    /// scope whose CRL has expired are refused either way.
    fn drop_ended(
        &self,
        next: &mut BTreeMap<Scope, Held>,
        cas: &BTreeMap<String, Vec<u8>>,
        now: i64,
        faults: &mut Vec<String>,
    ) {
        next.retain(|(issuer, partition), held| {
            if !cas.contains_key(issuer) {
                return false;
            }
            let ended = held.next_update <= now;
            if ended && is_alive(partition, now) {
                faults.push(format!(
                    "the CRL of {issuer}/{partition} has ended: its devices cannot connect"
                ));
            }
            !ended
        });
        // The last one stays: Mosquitto does not start with an empty file.
        if next.is_empty() {
            next.clone_from(&self.held);
        }
    }

    fn url(&self, (issuer, partition): &Scope) -> String {
        format!(
            "{}/crl/{issuer}/{partition}.crl",
            self.options.base_url.trim_end_matches('/')
        )
    }

    /// The CAs of the file by key id. It is read anew each time: CAs come and go.
    fn cas(&self) -> Result<BTreeMap<String, Vec<u8>>, CompanionError> {
        let path = &self.options.ca_file;
        let fault = |why: String| CompanionError::Trust {
            path: path.clone(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let certificates =
            certificates_from_pem(&text).ok_or_else(|| fault("a certificate in it is damaged".to_owned()))?;
        let mut cas = BTreeMap::new();
        for der in certificates {
            let info = parse_certificate_info(&der).map_err(|error| fault(error.to_string()))?;
            if info.is_ca {
                cas.insert(info.key_id.to_string(), der.to_vec());
            }
        }
        if cas.is_empty() {
            return Err(fault("no CA certificate in it".to_owned()));
        }
        Ok(cas)
    }
}

fn unpublished(issuer: &str) -> String {
    format!(
        "no CRL of the CA {issuer} is published there: devices with certificates of it cannot connect; is --base-url right, and \
         does that CA publish?"
    )
}

/// Whether leaves may have this partition and still be good.
fn is_alive(partition: &str, now: i64) -> bool {
    end_of(partition).is_some_and(|end| now < end)
}

fn near_end(held: &Held, now: i64) -> bool {
    let validity = held.next_update - held.this_update;
    held.next_update - now < (validity / 4).min(NEAR_END)
}
