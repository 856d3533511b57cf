//! What a judgement says: how bad, of what, and what to do.

use serde::Serialize;

use crate::output::Table;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be looked at; nothing is known to be wrong.
    Unknown,
    /// A person should look, today.
    Warning,
    /// Something does not work, or will not soon.
    Fault,
}

impl Level {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Of what, such as `Fleet plant/meters` or `clocks`.
    pub about: String,
    /// What was seen.
    pub message: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            about: about.into(),
            message: message.into(),
            remedy: None,
        }
    }

    /// Not as it should be.
    pub fn bad(level: Level, about: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level,
            ..Self::ok(about, message)
        }
    }

    /// With what to do.
    #[must_use]
    pub fn then(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// As a table with what to do below each line that is not well; the worst first.
pub fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut table = Table::new(["LEVEL", "ABOUT", "WHAT"]);
    for finding in sorted {
        table.row([
            finding.level.word().to_owned(),
            finding.about.clone(),
            finding.message.clone(),
        ]);
        if let Some(remedy) = &finding.remedy {
            table.row([String::new(), String::new(), format!("-> {remedy}")]);
        }
    }
    table.text()
}
