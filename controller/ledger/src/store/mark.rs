//! One certificate's marks: on hold, released, revoked.

use std::collections::HashMap;

use crate::sql::{Connection, Error, OptionalExtension as _, Row, params};
use certwave_core::model::{Identity, Millis};
use certwave_core::revocation::{Holder, Reason, Standing};
use certwave_protocol::ids::Fingerprint;

use super::column::{Columns, int};
use crate::partition::partition_of;
use crate::{Act, Author, CertificateKind, Marked, Result, SerialKey};

/// A certificate that may be marked.
pub(super) struct Certificate {
    /// Its row; `None` where only its serial number is known.
    pub(super) row: Option<i64>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) key: SerialKey,
    pub(super) identity: Option<Identity>,
    pub(super) not_after: i64,
    pub(super) partition: String,
}

/// The columns that [`certificate`] reads.
pub(super) const CERTIFICATE: &str = "c.id, c.fingerprint, c.issuer, c.serial, c.broker, c.device, c.not_after, c.kind";

/// Reads a certificate.
pub(super) fn certificate(row: &Row<'_>) -> crate::sql::Result<Certificate> {
    let mut c = Columns::of(row);
    let (row, fingerprint) = (c.get()?, c.optional_fingerprint()?);
    let key = SerialKey {
        issuer: c.get()?,
        serial: c.get()?,
    };
    let identity = c.optional_identity()?;
    let not_after = c.get()?;
    let kind: CertificateKind = c.word()?;
    Ok(Certificate {
        row: Some(row),
        fingerprint,
        key,
        identity,
        not_after,
        partition: partition_of(kind, not_after),
    })
}

const MARKED: &str =
    "issuer, serial, fingerprint, broker, device, partition, not_after, held_at, revoked_at, reason, change,
    requested_at, recorded_at, crl_number, crl_at, shut_at, closed_at, author";

/// How a certificate stands, by the next three columns: on hold since, revoked since, reason.
pub(super) fn standing(c: &mut Columns<'_>) -> crate::sql::Result<Standing> {
    let (held, revoked, code): (Option<i64>, Option<i64>, Option<u8>) = (c.get()?, c.get()?, c.get()?);
    Ok(match (revoked, code) {
        (Some(since), Some(code)) => Standing::Revoked {
            since,
            reason: Reason::from_code(code).ok_or_else(|| Error::column(0, format!("reason {code}")))?,
        },
        _ => held.map_or(Standing::Good, |since| Standing::Held { since }),
    })
}

fn marked(row: &Row<'_>) -> crate::sql::Result<Marked> {
    let mut c = Columns::of(row);
    let mut marked = Marked {
        key: SerialKey {
            issuer: c.get()?,
            serial: c.get()?,
        },
        fingerprint: c.optional_fingerprint()?,
        identity: c.optional_identity()?,
        partition: c.get()?,
        not_after: c.get()?,
        standing: standing(&mut c)?,
        holders: Vec::new(),
        author: Author::Person,
        change: c.unsigned()?,
        requested_at: c.get()?,
        recorded_at: c.get()?,
        crl: {
            let (number, at) = (c.get::<Option<i64>>()?, c.get()?);
            number.map(i64::cast_unsigned).zip(at)
        },
        shut_at: c.get()?,
        closed_at: c.get()?,
    };
    marked.author = c.text::<StoredAuthor>()?.0;
    Ok(marked)
}

/// One certificate's marks.
pub(super) fn get(db: &Connection, key: &SerialKey) -> Result<Option<Marked>> {
    let mut get = db.prepare_cached(&format!("SELECT {MARKED} FROM marks WHERE issuer = ?1 AND serial = ?2"))?;
    let Some(mut found) = get.query_row([&key.issuer, &key.serial], marked).optional()? else {
        return Ok(None);
    };
    found.holders = holders(db, key)?;
    Ok(Some(found))
}

/// A device's, the last change first.
pub(super) fn of_device(db: &Connection, identity: &Identity, limit: u32) -> Result<Vec<Marked>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT {MARKED} FROM marks WHERE broker = ?1 AND device = ?2 ORDER BY change DESC LIMIT ?3"
    ))?;
    let rows = get.query_map(
        params![identity.broker.as_str(), identity.device.as_str(), limit],
        marked,
    )?;
    let mut found = rows.collect::<crate::sql::Result<Vec<_>>>()?;
    for marked in &mut found {
        marked.holders = holders(db, &marked.key)?;
    }
    Ok(found)
}

fn holders(db: &Connection, key: &SerialKey) -> Result<Vec<Holder>> {
    let mut get = db.prepare_cached("SELECT holder FROM holds WHERE issuer = ?1 AND serial = ?2 ORDER BY holder")?;
    let rows = get.query_map([&key.issuer, &key.serial], |row| {
        Ok(Columns::of(row).text::<StoredHolder>()?.0)
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// A holder as stored.
pub(super) fn holder_text(holder: &Holder) -> String {
    match holder {
        Holder::Person => "person".to_owned(),
        Holder::Revocation(uid) => format!("revocation {uid}"),
        Holder::Retirement(job) => format!("retirement {job}"),
    }
}

/// An author as stored.
fn author_text(author: &Author) -> String {
    match author {
        Author::Person => "person".to_owned(),
        Author::Revocation(uid) => format!("revocation {uid}"),
        Author::Controller => "controller".to_owned(),
    }
}

/// A stored holder or author that this program does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is nobody who holds or revokes")]
struct UnknownHolder(String);

struct StoredAuthor(Author);

impl std::str::FromStr for StoredAuthor {
    type Err = UnknownHolder;
    fn from_str(text: &str) -> std::result::Result<Self, UnknownHolder> {
        let author = match (text, text.split_once(' ')) {
            ("person", _) => Author::Person,
            ("controller", _) => Author::Controller,
            (_, Some(("revocation", uid))) => Author::Revocation(uid.to_owned()),
            _ => return Err(UnknownHolder(text.to_owned())),
        };
        Ok(Self(author))
    }
}

struct StoredHolder(Holder);

impl std::str::FromStr for StoredHolder {
    type Err = UnknownHolder;
    fn from_str(text: &str) -> std::result::Result<Self, UnknownHolder> {
        let holder = match text.split_once(' ') {
            None if text == "person" => Some(Holder::Person),
            Some(("revocation", uid)) => Some(Holder::Revocation(uid.to_owned())),
            Some(("retirement", job)) => job.parse().ok().map(Holder::Retirement),
            _ => None,
        };
        holder.map(Self).ok_or_else(|| UnknownHolder(text.to_owned()))
    }
}

/// How a certificate is to stand, with what else its row says of it.
pub(super) struct Standings {
    pub(super) held_at: Option<i64>,
    pub(super) released_at: Option<i64>,
    pub(super) revoked: Option<(i64, Reason)>,
    pub(super) invalid_since: Option<i64>,
    pub(super) requested_at: Millis,
    /// A live session may have to be closed.
    pub(super) session: bool,
    pub(super) author: Author,
}

/// What is done to a certificate.
pub(super) struct Deed<'a> {
    pub(super) act: &'a Act,
    pub(super) requested_at: Millis,
    /// A live session is to be closed if the certificate is not good any more.
    pub(super) session: bool,
    pub(super) author: &'a Author,
}

/// Changes of one transaction: numbers them, and notes which scopes they belong to.
pub(super) struct Changes {
    now: Millis,
    last: u64,
    scopes: HashMap<(String, String), u64>,
}

impl Changes {
    pub(super) fn begin(db: &Connection, now: Millis) -> Result<Self> {
        Ok(Self {
            now,
            last: last(db)?,
            scopes: HashMap::new(),
        })
    }

    /// Does it to a certificate; answers whether its standing or its holders changed.
    pub(super) fn act(&mut self, db: &Connection, certificate: &Certificate, deed: &Deed<'_>) -> Result<bool> {
        let Deed {
            act,
            requested_at,
            session,
            author,
        } = *deed;
        let SerialKey { issuer, serial } = &certificate.key;
        let mut get = db.prepare_cached(
            "SELECT held_at, revoked_at IS NOT NULL, session FROM marks WHERE issuer = ?1 AND serial = ?2",
        )?;
        let present: Option<(Option<i64>, bool, bool)> = get
            .query_row([issuer, serial], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let (held_at, revoked, open) = present.unwrap_or_default();
        if revoked {
            return Ok(false);
        }
        let now_s = self.now.div_euclid(1000);
        let mut next = Standings {
            held_at,
            released_at: None,
            revoked: None,
            invalid_since: None,
            requested_at,
            session,
            author: author.clone(),
        };
        match act {
            Act::Revoke { reason, invalid_since } => {
                db.prepare_cached("DELETE FROM holds WHERE issuer = ?1 AND serial = ?2")?
                    .execute([issuer, serial])?;
                next.revoked = Some((held_at.unwrap_or(now_s), *reason));
                (next.held_at, next.invalid_since) = (None, *invalid_since);
            }
            Act::Hold(holder) => {
                let added = db
                    .prepare_cached(
                        "INSERT INTO holds (issuer, serial, holder) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                    )?
                    .execute([issuer, serial, &holder_text(holder)])?;
                if held_at.is_some() {
                    if session && !open {
                        // A retirement's until now.
                        db.prepare_cached(
                            "UPDATE marks SET session = 1, closed_at = NULL, requested_at = ?3, recorded_at = ?4, author = ?5
                             WHERE issuer = ?1 AND serial = ?2",
                        )?
                        .execute(params![issuer, serial, requested_at, self.now, author_text(author)])?;
                    }
                    return Ok(added == 1);
                }
                next.held_at = Some(now_s);
            }
            Act::Release(holder) => {
                let gone = db
                    .prepare_cached("DELETE FROM holds WHERE issuer = ?1 AND serial = ?2 AND holder = ?3")?
                    .execute([issuer, serial, &holder_text(holder)])?;
                let kept = db
                    .prepare_cached("SELECT 1 FROM holds WHERE issuer = ?1 AND serial = ?2")?
                    .exists([issuer, serial])?;
                if gone == 0 || kept {
                    return Ok(gone == 1);
                }
                (next.held_at, next.released_at, next.session) = (None, Some(now_s), false);
            }
        }
        self.put(db, certificate, &next)?;
        Ok(true)
    }

    /// Stores how a certificate stands, as a change of its own.
    pub(super) fn put(&mut self, db: &Connection, certificate: &Certificate, s: &Standings) -> Result<()> {
        self.last += 1;
        let SerialKey { issuer, serial } = &certificate.key;
        let (broker, device) = certificate
            .identity
            .as_ref()
            .map(|i| (i.broker.as_str(), i.device.as_str()))
            .unzip();
        db.prepare_cached(
            "INSERT INTO marks (issuer, partition, serial, fingerprint, broker, device, not_after, held_at, released_at,
                 revoked_at, reason, invalid_since, change, requested_at, recorded_at, session, closed_at, author)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
             ON CONFLICT (issuer, serial) DO UPDATE SET fingerprint = coalesce(marks.fingerprint, excluded.fingerprint),
                 broker = coalesce(marks.broker, excluded.broker), device = coalesce(marks.device, excluded.device),
                 held_at = excluded.held_at, released_at = excluded.released_at, revoked_at = excluded.revoked_at,
                 reason = excluded.reason, invalid_since = excluded.invalid_since, change = excluded.change,
                 requested_at = excluded.requested_at, recorded_at = excluded.recorded_at, session = excluded.session,
                 crl_number = NULL, crl_at = NULL, shut_at = NULL,
                 closed_at = excluded.closed_at, author = excluded.author",
        )?
        .execute(params![
            issuer,
            certificate.partition,
            serial,
            certificate.fingerprint.map(|f| f.0),
            broker,
            device,
            certificate.not_after,
            s.held_at,
            s.released_at,
            s.revoked.map(|(since, _)| since),
            s.revoked.map(|(_, reason)| reason.code()),
            s.invalid_since,
            int(self.last)?,
            s.requested_at,
            self.now,
            s.session,
            (!s.session).then_some(self.now),
            author_text(&s.author)
        ])?;
        // A mark stays in the scope in which it was first listed.
        self.scopes
            .insert((issuer.clone(), certificate.partition.clone()), self.last);
        Ok(())
    }

    /// Stores the numbers.
    pub(super) fn end(self, db: &Connection) -> Result<()> {
        if self.scopes.is_empty() {
            return Ok(());
        }
        db.prepare_cached("UPDATE ledger SET last_change = ?1")?
            .execute([int(self.last)?])?;
        let mut put = db.prepare_cached(
            "INSERT INTO scopes (issuer, partition, last_change) VALUES (?1, ?2, ?3)
             ON CONFLICT (issuer, partition) DO UPDATE SET last_change = excluded.last_change",
        )?;
        for ((issuer, partition), change) in &self.scopes {
            put.execute(params![issuer, partition, int(*change)?])?;
        }
        Ok(())
    }
}

/// The last change of any certificate's standing.
pub(super) fn last(db: &Connection) -> Result<u64> {
    let mut get = db.prepare_cached("SELECT last_change FROM ledger")?;
    Ok(get.query_row([], |row| Columns::of(row).unsigned())?)
}
