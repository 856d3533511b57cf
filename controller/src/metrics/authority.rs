//! What is shown of CAs and of the CRLs that are served for them.

use certwave_core::model::ObjectRef;
use prometheus::{IntGaugeVec, Result};

use super::register::{Register, Unit};

const AUTHORITY: [&str; 2] = ["namespace", "authority"];
const SCOPE: [&str; 3] = ["namespace", "authority", "scope"];

/// Gauges by CA.
pub struct AuthorityMetrics {
    not_before: IntGaugeVec,
    not_after: IntGaugeVec,
    crl_this_update: IntGaugeVec,
    crl_due: IntGaugeVec,
    crl_next_update: IntGaugeVec,
    crl_entries: IntGaugeVec,
    crl_served_ok: IntGaugeVec,
}

/// The CRLs of one kind of scope, as they are served. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlShown {
    /// Those of the one that ends first, of those that will be made anew; `None`: none could be read.
    pub times: Option<CrlTimes>,
    /// Certificates that they list together.
    pub entries: usize,
    /// Whether all are in order.
    pub fine: bool,
}

/// The times of a CRL that is served, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlTimes {
    /// `thisUpdate`.
    pub this_update: i64,
    /// When the next one is to be made at the latest.
    pub due: i64,
    /// `nextUpdate`.
    pub next_update: i64,
}

impl AuthorityMetrics {
    pub(super) fn new(register: &mut Register) -> Result<Self> {
        Ok(Self {
            not_before: register.gauges(
                "authority_not_before_timestamp_seconds",
                Unit::UnixSeconds,
                "When the CA's certificate began",
                &AUTHORITY,
            )?,
            not_after: register.gauges(
                "authority_not_after_timestamp_seconds",
                Unit::UnixSeconds,
                "When the CA's certificate ends",
                &AUTHORITY,
            )?,
            crl_this_update: register.gauges(
                "crl_this_update_timestamp_seconds",
                Unit::UnixSeconds,
                "thisUpdate of the CRL that is served; of several months, of the one that ends first",
                &SCOPE,
            )?,
            crl_due: register.gauges(
                "crl_due_timestamp_seconds",
                Unit::UnixSeconds,
                "When the CRL that is served is to be made anew at the latest; of several months, of the one that ends first",
                &SCOPE,
            )?,
            crl_next_update: register.gauges(
                "crl_next_update_timestamp_seconds",
                Unit::UnixSeconds,
                "nextUpdate of the CRL that is served; of several months the earliest",
                &SCOPE,
            )?,
            crl_entries: register.gauges(
                "crl_entries",
                Unit::Count,
                "Certificates that the CRLs that are served list",
                &SCOPE,
            )?,
            crl_served_ok: register.gauges(
                "crl_served_ok",
                Unit::Flag,
                "1 while the CRLs, read back from the URLs in certificates, are in order",
                &SCOPE,
            )?,
        })
    }

    /// Shows the validity of a CA's certificate, Unix seconds.
    pub fn show(&self, authority: &ObjectRef, not_before: i64, not_after: i64) {
        let labels = [authority.namespace.as_str(), authority.name.as_str()];
        self.not_before.with_label_values(&labels).set(not_before);
        self.not_after.with_label_values(&labels).set(not_after);
    }

    /// A CA is gone.
    pub fn forget(&self, authority: &ObjectRef) {
        let labels = [authority.namespace.as_str(), authority.name.as_str()];
        for metric in [&self.not_before, &self.not_after] {
            // Not there is as good.
            let _ = metric.remove_label_values(&labels);
        }
    }

    /// There are no CRLs of this kind of scope any more.
    pub fn forget_crls(&self, authority: &ObjectRef, scope: &str) {
        let labels = [authority.namespace.as_str(), authority.name.as_str(), scope];
        let gauges = [
            &self.crl_served_ok,
            &self.crl_entries,
            &self.crl_this_update,
            &self.crl_due,
            &self.crl_next_update,
        ];
        for gauge in gauges {
            // Not there is as good.
            let _ = gauge.remove_label_values(&labels);
        }
    }

    /// Shows the CRLs of one kind of scope. Where none could be read, what is known of their times stands: it is by then that they
    /// are missed.
    pub fn show_crls(&self, authority: &ObjectRef, scope: &str, shown: CrlShown) {
        let labels = [authority.namespace.as_str(), authority.name.as_str(), scope];
        self.crl_served_ok.with_label_values(&labels).set(shown.fine.into());
        let entries = i64::try_from(shown.entries).unwrap_or(i64::MAX);
        self.crl_entries.with_label_values(&labels).set(entries);
        if let Some(times) = shown.times {
            self.crl_this_update.with_label_values(&labels).set(times.this_update);
            self.crl_due.with_label_values(&labels).set(times.due);
            self.crl_next_update.with_label_values(&labels).set(times.next_update);
        }
    }
}
