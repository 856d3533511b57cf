//! Who belongs to a Rotation, in which wave and order: for its start, a preview, and those who join.

use std::collections::BTreeMap;
use std::collections::HashMap;

use certwave_core::model::Millis;
use certwave_core::rollout::plan::{self, Fit, PlanError};
use certwave_core::rollout::run::Plan;
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::Strategy;
use certwave_ledger::{Candidate, DeviceRow, FleetKey, Ledger, NewMember};

use crate::reconcile::error::Result;

/// Devices read in one go.
const PAGE: u32 = 5_000;

/// Which of a fleet's devices a Rotation is for.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// Labels that they bear.
    pub(super) selector: BTreeMap<String, String>,
    /// Only those whose certificates end before this, Unix seconds: an automatic Rotation takes what is due.
    pub(super) due_before: Option<i64>,
    /// Those that failed are taken only when their certificates end before this, Unix seconds: an automatic Rotation must
    /// not fail again and again by the same devices. `None`: as the others.
    pub(super) failed_before: Option<i64>,
    /// Only those with a certificate of another issuer (key id).
    pub(super) not_of: Option<String>,
    /// Not those whose certificate was issued since the Rotation began that they could join.
    pub(super) not_renewed: bool,
}

impl Scope {
    fn takes(&self, device: &Candidate) -> bool {
        select::matches(&self.selector, &device.labels)
            && self.due_before.is_none_or(|end| device.not_after < end)
            && self
                .failed_before
                .is_none_or(|end| !device.failed || device.not_after < end)
            && self.not_of.as_ref().is_none_or(|issuer| device.issuer != *issuer)
            && !(self.not_renewed && device.renewed)
    }
}

/// A plan with its members.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) plan: Plan,
    pub(super) members: Vec<NewMember>,
    /// How many devices' certificates end in each hour: its beginning in Unix seconds.
    pub(super) ends: Vec<(i64, u32)>,
    /// Devices that no window selects.
    pub(super) without_window: u32,
    /// Of the devices, those whose certificates end first.
    pub(super) first: Vec<String>,
}

/// Plans over the fleet as it is.
pub(super) async fn draft(
    ledger: &dyn Ledger,
    fleet: &FleetKey,
    now: Millis,
    strategy: &Strategy,
    scope: &Scope,
    fit: Fit,
) -> Result<std::result::Result<Draft, PlanError>> {
    let mut devices = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.candidates(fleet, now, after, PAGE).await?;
        let Some(last) = page.last().map(|device| device.row) else {
            break;
        };
        after = Some(last);
        devices.extend(page.into_iter().filter(|device| scope.takes(device)));
    }
    Ok(lay_out(strategy, &devices, |candidates| {
        plan::plan_fitting(strategy, candidates, fit)
    }))
}

/// Who of the fleet is not a member and should be: the new plan, and the new members. `None` where nobody is.
pub(super) async fn joiners(
    ledger: &dyn Ledger,
    uid: &str,
    now: Millis,
    strategy: &Strategy,
    plan: &Plan,
    scope: &Scope,
) -> Result<Option<Draft>> {
    let mut devices = Vec::new();
    let mut after: Option<DeviceRow> = None;
    loop {
        let page = ledger.strangers(uid, now, after, PAGE).await?;
        let Some(last) = page.last().map(|device| device.row) else {
            break;
        };
        after = Some(last);
        devices.extend(page.into_iter().filter(|device| scope.takes(device)));
    }
    if devices.is_empty() {
        return Ok(None);
    }
    Ok(lay_out(strategy, &devices, |candidates| {
        Ok(plan::join(plan, strategy, candidates))
    })
    .ok())
}

fn lay_out(
    strategy: &Strategy,
    devices: &[Candidate],
    place: impl FnOnce(&[plan::Candidate<'_>]) -> std::result::Result<(Plan, Vec<plan::Place>), PlanError>,
) -> std::result::Result<Draft, PlanError> {
    let mut groups = HashMap::new();
    let spread = strategy.order.spread_by.as_ref();
    let candidates: Vec<_> = devices
        .iter()
        .map(|device| {
            let value = spread
                .and_then(|label| device.labels.get(label))
                .map_or("", String::as_str);
            let next = u32::try_from(groups.len()).unwrap_or(u32::MAX);
            plan::Candidate {
                id: device.device.as_str(),
                not_after: device.not_after,
                group: *groups.entry(value).or_insert(next),
                waves: select::waves(&strategy.waves, &device.labels),
            }
        })
        .collect();
    let (plan, places) = place(&candidates)?;
    let limited = strategy.limits.per_group.as_ref().map(|group| &group.by);
    let mut without_window = 0;
    let members = places
        .into_iter()
        .filter_map(|at| {
            let device = devices.get(at.candidate as usize)?;
            let windows = select::windows(&strategy.windows, &device.labels);
            without_window += u32::from(windows == 0);
            Some(NewMember {
                row: device.row,
                wave: at.wave,
                ordinal: at.ordinal,
                group: limited
                    .and_then(|label| device.labels.get(label).cloned())
                    .unwrap_or_default(),
                windows,
            })
        })
        .collect();
    let mut ends: BTreeMap<i64, u32> = BTreeMap::new();
    for device in devices {
        *ends.entry(device.not_after.div_euclid(3600) * 3600).or_default() += 1;
    }
    let mut by_end: Vec<_> = devices
        .iter()
        .map(|device| (device.not_after, device.device.as_str()))
        .collect();
    let shown = by_end.len().min(super::EXAMPLES as usize);
    if shown < by_end.len() {
        by_end.select_nth_unstable(shown);
    }
    by_end.truncate(shown);
    by_end.sort_unstable();
    Ok(Draft {
        plan,
        members,
        ends: ends.into_iter().collect(),
        without_window,
        first: by_end.into_iter().map(|(_, id)| id.to_owned()).collect(),
    })
}
