//! One search, and what it found.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model as _};

use crate::model::{Action, Fleet};
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::settle::unsettled;
use crate::state::State;

/// A way to a state that breaks a property.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// The property.
    pub property: &'static str,
    /// The steps to it, one of the shortest.
    pub steps: Vec<Action>,
    /// Where it is that something never ends: how it goes on from there, and where that leads.
    pub after: Option<(Vec<Action>, Box<State>)>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "breaks {:?} after {} steps:", self.property, self.steps.len())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))?;
        if let Some((taken, state)) = &self.after {
            writeln!(f, "and then, though nothing goes wrong any more:")?;
            taken.iter().try_for_each(|step| writeln!(f, "  {step:?}"))?;
            writeln!(f, "which leads to {state:#?}")?;
        }
        Ok(())
    }
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The scenario.
    pub name: &'static str,
    /// Different states reached.
    pub states: usize,
    /// Steps taken, to states known already too.
    pub steps: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Properties that do not hold.
    pub broken: Vec<Counterexample>,
    /// What should happen somewhere and does not.
    pub missing: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{:<30} {:>9} states, {:>9} steps, depth {:>3}, {seconds:.1} s",
            self.name, self.states, self.steps, self.depth
        )
    }
}

/// Searches every state of a scenario; with a mutant until a property is broken. `threads`: 1 finds shortest ways.
pub fn search(scenario: Scenario, mutant: Option<Mutant>, threads: NonZeroUsize) -> Report {
    let begun = Instant::now();
    let fleet = Fleet::new(scenario, mutant);
    let again = Fleet::new(scenario, mutant);
    let properties = fleet.properties();
    let checker = fleet
        .checker()
        .threads(threads.get())
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let mut broken = Vec::new();
    let mut missing = Vec::new();
    for property in properties {
        match (property.expectation, found.get(property.name)) {
            (Expectation::Sometimes, None) => missing.push(property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => broken.push(Counterexample {
                property: property.name,
                after: unsettled(&again, path.last_state()).map(|(taken, state)| (taken, Box::new(state))),
                steps: path.clone().into_actions(),
            }),
        }
    }
    Report {
        name: scenario.name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        broken,
        missing,
    }
}
