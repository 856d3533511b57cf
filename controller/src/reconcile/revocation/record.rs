//! Recording and releasing, in batches.

use std::time::Duration;

use certwave_core::revocation::Holder;
use certwave_crds::Revocation;
use certwave_ledger::{Act, DeviceRow, Mark, Target};
use kube::ResourceExt;

use super::subject::{BATCH, Subject};
use super::{Revocations, asked, detail};
use crate::reconcile::device::{act, invalid_since};
use crate::reconcile::error::Result;
use crate::reconcile::time::{now_ms, now_s};

/// Batches in one go, before the status is shown.
const BATCHES: u32 = 20;
/// Others write to the ledger too: devices that are rotated must not time out because of this.
const PAUSE: Duration = Duration::from_millis(20);

/// How far one is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    after: Option<DeviceRow>,
    /// This pass has changed something: another one follows, for what was issued meanwhile.
    changed: bool,
}

impl Revocations {
    /// Records some batches; answers whether nothing is left.
    pub(super) async fn record(&self, object: &Revocation, uid: &str, subject: &Subject) -> Result<bool> {
        let (ledger, epoch) = (&self.shared.ledger, self.shared.epoch);
        let mut cursor = self.cursor(uid);
        if let Subject::Authority(key_id) = subject {
            let mark = said(object, uid, Target::Authority(key_id.clone()));
            ledger.mark(epoch, now_ms(), vec![mark]).await?;
            self.shared.registry.standing_moved();
            self.shared.authority_marked();
            return Ok(true);
        }
        let mut moved = false;
        let mut over = false;
        for _ in 0..BATCHES {
            let page = subject.page(&**ledger, now_s(), cursor.after).await?;
            let Some((last, found)) = page else {
                over = !cursor.changed;
                cursor = Cursor::default();
                if over {
                    break;
                }
                continue;
            };
            cursor.after = Some(last);
            if found.is_empty() {
                continue;
            }
            let marks = found.iter().map(|found| said(object, uid, subject.target(found)));
            let changed = ledger.mark(epoch, now_ms(), marks.collect()).await?;
            let changed = changed.iter().any(|marked| !marked.is_empty());
            cursor.changed |= changed;
            moved |= changed;
            tokio::time::sleep(PAUSE).await;
        }
        self.set_cursor(uid, Some(cursor));
        if moved {
            self.shared.registry.standing_moved();
        }
        Ok(over)
    }

    /// Lets go of everything that is on hold for the object with this uid.
    pub(super) async fn release(&self, uid: &str, who: &str, why: &str) -> Result<()> {
        let (ledger, epoch) = (&self.shared.ledger, self.shared.epoch);
        loop {
            let held = ledger.held_by(uid, BATCH).await?;
            if held.is_empty() {
                return Ok(());
            }
            let now = now_ms();
            let marks = held.iter().map(|identity| Mark {
                target: Target::Device(identity.clone()),
                act: Act::Release(Holder::Revocation(uid.to_owned())),
                requested_at: now,
                who: who.to_owned(),
                detail: Some(why.to_owned()),
                revocation: Some(uid.to_owned()),
            });
            ledger.mark(epoch, now, marks.collect()).await?;
            self.shared.registry.standing_moved();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn said(object: &Revocation, uid: &str, target: Target) -> Mark {
    let (who, requested_at) = asked(object);
    let spec = &object.spec;
    let (since, _) = invalid_since(spec.since.as_ref(), now_ms());
    let holder = Holder::Revocation(object.uid().unwrap_or_default());
    Mark {
        target,
        act: act(spec.hold, spec.reason, since, holder),
        requested_at,
        who,
        detail: Some(detail(object)),
        revocation: Some(uid.to_owned()),
    }
}
