//! Judgements over what objects say: what a person should know, and what to do. Pure: objects and the time in, findings out.

pub mod authority;
pub mod broker;
pub mod cluster;
pub mod fleet;
pub mod rotation;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::finding::{Finding, Level};

/// `Fleet plant/meters`.
pub fn about(kind: &str, metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match metadata.namespace.as_deref() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The condition of this type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// A condition that is not as it should be.
struct Rule {
    /// Its type.
    kind: &'static str,
    /// The status that is bad.
    bad: &'static str,
    /// How bad.
    level: Level,
    /// What to do, where the controller's own message does not say it.
    remedy: Option<&'static str>,
}

const fn rule(kind: &'static str, bad: &'static str, level: Level, remedy: Option<&'static str>) -> Rule {
    Rule {
        kind,
        bad,
        level,
        remedy,
    }
}

/// What the conditions say against these rules.
fn by_rules(about: &str, conditions: &[Condition], rules: &[Rule]) -> Vec<Finding> {
    let broken = rules.iter().filter_map(|rule| {
        let found = condition(conditions, rule.kind).filter(|found| found.status == rule.bad)?;
        let message = format!(
            "{} is {} ({}): {}",
            rule.kind, found.status, found.reason, found.message
        );
        let finding = Finding::bad(rule.level, about, message);
        Some(match rule.remedy {
            Some(remedy) => finding.then(remedy),
            None => finding,
        })
    });
    broken.collect()
}

/// The controller has not looked at what stands in the spec.
fn unseen(about: &str, metadata: &ObjectMeta, observed: Option<i64>) -> Option<Finding> {
    let generation = metadata.generation?;
    (observed.unwrap_or(0) < generation).then(|| {
        let words = if observed.is_none() {
            "no controller has looked at it yet"
        } else {
            "the controller has not taken up the last change yet"
        };
        Finding::bad(Level::Warning, about, words)
            .then("where it stays so: is a controller running that watches this namespace? See the finding about the controller")
    })
}
