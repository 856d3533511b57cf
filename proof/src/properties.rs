//! What must hold in every state, by the numbers of the design's invariants, and what must happen in some.

use certwave_core::model::{JobKind, JobState};
use certwave_protocol::message::Subject;
use stateright::Property;

use crate::message::What;
use crate::model::Fleet;
use crate::scenario::Scenario;
use crate::settle::settles;
use crate::state::State;
use crate::symbols;

/// The properties of a scenario.
pub fn all(scenario: &Scenario) -> Vec<Property<Fleet>> {
    let mut all = vec![
        Property::always("1: no job finds the device shut out", |_, s: &State| no_breach(s, 1)),
        Property::always("1: the device holds a credential that the door accepts", lets_in),
        Property::always("1: what the journal names is whole", |_, s: &State| s.device.whole()),
        Property::always("2: nothing is revoked that the device starts from", not_revoked),
        Property::always("2: nothing is revoked unproven", |_, s: &State| no_breach(s, 2)),
        Property::always(
            "3: stale, foreign and repeated messages change nothing",
            |_, s: &State| no_breach(s, 3),
        ),
        Property::always("3: commit is said after tested", tested),
        Property::always("3: confirmed is what the device starts from", proven),
        Property::always("4: the job ends and both sides agree", settles),
    ];
    all.push(Property::sometimes("a job is confirmed", |_, s: &State| {
        is(s, JobState::Confirmed)
    }));
    if scenario.jobs > 1 && scenario.rollback {
        all.push(Property::sometimes("a device goes back and says so", |_, s: &State| {
            is_confirmed(s, |kind| *kind == JobKind::Rollback)
        }));
    }
    if scenario.trust {
        all.push(Property::sometimes("anchors are taken", |_, s: &State| {
            is_confirmed(s, |kind| matches!(kind, JobKind::Trust(_)))
        }));
        all.push(Property::sometimes(
            "a certificate follows the anchors",
            |_, s: &State| {
                let anchors = s.shown.obeyed.iter().any(|what| matches!(what, What::Bundle(_)));
                anchors && is_confirmed(s, |kind| *kind == JobKind::Rotate)
            },
        ));
    }
    // What it does is a fault of its own.
    if scenario.each.takeovers > 0 && scenario.faults > 1 {
        all.push(Property::sometimes(
            "a deposed controller is still there",
            |_, s: &State| s.deposed,
        ));
    }
    if scenario.each.person > 0 {
        all.push(Property::sometimes(
            "a person bars the device amid a job",
            |_, s: &State| s.ledger.device.bar.is_some() && (is(s, JobState::Issued) || is(s, JobState::Committing)),
        ));
    }
    if scenario.each.deadlines > 0 {
        all.push(Property::sometimes("a job times out", |_, s: &State| {
            is(s, JobState::TimedOut)
        }));
    }
    if scenario.retire && !scenario.unfit {
        all.push(Property::sometimes("an old certificate is retired", |_, s: &State| {
            s.ledger.issued.values().any(|marks| marks.revoked)
        }));
    }
    if scenario.retire && scenario.unfit {
        all.push(Property::sometimes(
            "a device is shut out for a probation time",
            |fleet: &Fleet, s: &State| !s.device.ways().any(|leaf| fleet.admits(s, leaf)),
        ));
    }
    all
}

fn is_confirmed(state: &State, of: impl Fn(&JobKind) -> bool) -> bool {
    let job = state.ledger.device.job.as_ref();
    job.is_some_and(|job| job.state == JobState::Confirmed && of(&job.kind))
}

fn is(state: &State, wanted: JobState) -> bool {
    state.ledger.device.job.as_ref().is_some_and(|job| job.state == wanted)
}

fn no_breach(state: &State, invariant: u8) -> bool {
    state.breach.is_none_or(|breach| breach.invariant() != invariant)
}

/// Whether a person has spoken.
pub(crate) fn by_a_person(state: &State) -> bool {
    state.ledger.device.bar.is_some() || state.ledger.issued.values().any(|m| m.held || m.person)
}

/// One of the certificates that the device tries is let in, or will be when a hold ends by itself; unless a person has spoken.
fn lets_in(fleet: &Fleet, state: &State) -> bool {
    by_a_person(state)
        || state.device.ways().any(|leaf| {
            let marks = state.ledger.issued.get(&leaf).copied().unwrap_or_default();
            let fit = !fleet.scenario.unfit || leaf == 1;
            let open = state.ledger.retirement.as_ref();
            let probation = open.is_some_and(|r| r.0.phase.holds() && symbols::leaf(&r.0.old) == leaf);
            let ends = !marks.retiring || probation;
            fit && !marks.revoked && ends
        })
}

fn not_revoked(_: &Fleet, state: &State) -> bool {
    !state
        .ledger
        .issued
        .get(&state.active())
        .is_some_and(|marks| marks.revoked)
}

fn tested(_: &Fleet, state: &State) -> bool {
    state
        .ledger
        .device
        .job
        .as_ref()
        .filter(|job| job.committed)
        .is_none_or(|job| match job.subject {
            Some(Subject::Certificate(of)) => state.shown.tested.contains(&What::Leaf(symbols::leaf(&of))),
            Some(Subject::Bundle(of)) => state.shown.tested.contains(&What::Bundle(symbols::bundle_number(&of))),
            None => false,
        })
}

fn proven(_: &Fleet, state: &State) -> bool {
    let device = &state.ledger.device;
    let trusted = device.job.as_ref().is_none_or(|job| match &job.kind {
        JobKind::Trust(of) if job.state == JobState::Confirmed => {
            state.shown.obeyed.contains(&What::Bundle(symbols::bundle_number(of)))
        }
        _ => true,
    });
    trusted && state.shown.obeyed.contains(&What::Leaf(state.ledger.current()))
}
