//! The chain of hashes over the audit: each line's hash is over the hash of the line before it and all of its own fields.

use certwave_protocol::ids::Fingerprint;

use crate::AuditEntry;

/// What stands in place of a hash before the first line.
pub(crate) const START: Fingerprint = Fingerprint([0; 32]);

/// The hash of the line `id`, which follows one with the hash `before`: SHA-256 over `before`, then id and time (8 octets each,
/// big-endian), then who, what, broker, deviceId, job and detail, each as one octet 0 where there is none, or else one octet 1,
/// its length (8 octets, big-endian) and itself.
pub(crate) fn link(before: &Fingerprint, id: i64, line: &AuditEntry) -> Fingerprint {
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(&before.0);
    text.extend_from_slice(&id.to_be_bytes());
    text.extend_from_slice(&line.at.to_be_bytes());
    let identity = line.identity.as_ref();
    let fields = [
        Some(line.who.as_bytes()),
        Some(line.what.as_bytes()),
        identity.map(|i| i.broker.as_str().as_bytes()),
        identity.map(|i| i.device.as_str().as_bytes()),
        line.job.as_ref().map(|j| j.as_bytes().as_slice()),
        line.detail.as_ref().map(String::as_bytes),
    ];
    for field in fields {
        match field {
            None => text.push(0),
            Some(value) => {
                text.push(1);
                text.extend_from_slice(&(value.len() as u64).to_be_bytes());
                text.extend_from_slice(value);
            }
        }
    }
    Fingerprint::of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_and_the_line_before_count() {
        let line = AuditEntry {
            at: 1,
            who: "a".to_owned(),
            what: "b".to_owned(),
            identity: None,
            job: None,
            detail: None,
        };
        let with = |change: &dyn Fn(&mut AuditEntry)| {
            let mut other = line.clone();
            change(&mut other);
            link(&START, 1, &other)
        };
        let hashes = [
            link(&START, 1, &line),
            link(&START, 2, &line),
            link(&Fingerprint([1; 32]), 1, &line),
            with(&|l| l.at = 2),
            with(&|l| l.who = "ab".to_owned()),
            with(&|l| l.what = String::new()),
            with(&|l| l.detail = Some(String::new())),
            with(&|l| (l.who, l.what) = (String::new(), "ab".to_owned())),
        ];
        let different: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(different.len(), hashes.len());
    }
}
