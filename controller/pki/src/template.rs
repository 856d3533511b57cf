//! A Fleet's template for subjects and SANs: parsed once, rendered for each device.

use std::collections::BTreeMap;

use crate::{AttributeType, LeafSubject, NameError, San, SanKind};

/// The longest value that a placeholder may have, in bytes (a Kubernetes label's value has at most 63).
const MAX_VALUE: usize = 63;

/// Why a template cannot be parsed or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that does not exist.
    #[error("unknown placeholder {{{0}}}; known are {{deviceId}}, {{fleet}}, {{namespace}} and {{labels.<key>}}")]
    UnknownPlaceholder(String),
    /// A brace without its partner. `{{` and `}}` stand for single braces.
    #[error("a brace without its partner in {0:?}; write {{{{ or }}}} for a brace itself")]
    Unbalanced(String),
    /// An attribute that is given twice.
    #[error("the subject attribute {0} is given twice")]
    Duplicate(AttributeType),
    /// The device lacks a label that the template uses.
    #[error("the device has no label {0:?}, which its Fleet's template uses")]
    MissingLabel(String),
    /// A placeholder's value that is empty, too long, or could be taken for structure.
    #[error("the value {value:?} of {{{placeholder}}} cannot be used: {why}")]
    Value {
        /// The placeholder, without braces.
        placeholder: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The rendered name cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl TemplateError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::UnknownPlaceholder(_) => "unknown-placeholder",
            Self::Unbalanced(_) => "unbalanced",
            Self::Duplicate(_) => "duplicate",
            Self::MissingLabel(_) => "missing-label",
            Self::Value { .. } => "value",
            Self::Name(error) => error.category(),
        }
    }
}

/// What a Fleet declares: values with placeholders `{deviceId}`, `{fleet}`, `{namespace}` and `{labels.<key>}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Attributes of the subject besides the common name, each kind once; the order is kept.
    pub subject: Vec<(AttributeType, String)>,
    /// Subject alternative names; the order is kept.
    pub sans: Vec<(SanKind, String)>,
}

/// What placeholders are replaced with.
#[derive(Debug, Clone, Copy)]
pub struct TemplateContext<'a> {
    /// The device's id, which is also the common name.
    pub device_id: &'a str,
    /// The Fleet's name.
    pub fleet: &'a str,
    /// The Fleet's namespace.
    pub namespace: &'a str,
    /// The device's declared labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// A parsed template. The default one has no attributes and no SANs: the subject is `CN=<deviceId>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafTemplate {
    subject: Vec<(AttributeType, Text)>,
    sans: Vec<(SanKind, Text)>,
}

impl LeafTemplate {
    /// Parses what a Fleet declares. Errors show before the first device is served.
    pub fn parse(spec: &TemplateSpec) -> Result<Self, TemplateError> {
        let mut template = Self::default();
        for (kind, text) in &spec.subject {
            if template.subject.iter().any(|(other, _)| other == kind) {
                return Err(TemplateError::Duplicate(*kind));
            }
            template.subject.push((*kind, Text::parse(text)?));
        }
        for (kind, text) in &spec.sans {
            template.sans.push((*kind, Text::parse(text)?));
        }
        Ok(template)
    }

    /// The subject and SANs of one device.
    pub fn render(&self, context: &TemplateContext<'_>) -> Result<LeafSubject, TemplateError> {
        let attributes = self
            .subject
            .iter()
            .map(|(kind, text)| Ok((*kind, text.render(context, is_text)?)))
            .collect::<Result<_, TemplateError>>()?;
        let sans = self
            .sans
            .iter()
            .map(|(kind, text)| Ok(San::new(*kind, &text.render(context, is_name)?)?))
            .collect::<Result<_, TemplateError>>()?;
        Ok(LeafSubject::new(context.device_id, attributes, sans)?)
    }
}

/// In a subject any text will do; the attribute's own check follows.
fn is_text(_: &str) -> Option<&'static str> {
    None
}

/// In a SAN a value must not add structure, such as another path segment or host.
fn is_name(value: &str) -> Option<&'static str> {
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        Some("in a SAN only letters, digits, '-', '.' and '_' are allowed")
    } else if value.bytes().all(|b| b == b'.') {
        Some("dots alone are a relative path")
    } else {
        None
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    DeviceId,
    Fleet,
    Namespace,
    Label(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Text(Vec<Part>);

impl Text {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::Unbalanced(text.to_owned());
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let inner = rest.strip_prefix('{').ok_or_else(unbalanced)?;
                let (name, after) = inner.split_once('}').ok_or_else(unbalanced)?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::placeholder(name)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    fn render(
        &self,
        context: &TemplateContext<'_>,
        check: fn(&str) -> Option<&'static str>,
    ) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            let (placeholder, value) = match part {
                Part::Literal(literal) => {
                    out.push_str(literal);
                    continue;
                }
                Part::DeviceId => ("deviceId".to_owned(), context.device_id),
                Part::Fleet => ("fleet".to_owned(), context.fleet),
                Part::Namespace => ("namespace".to_owned(), context.namespace),
                Part::Label(key) => {
                    let value = context
                        .labels
                        .get(key)
                        .ok_or_else(|| TemplateError::MissingLabel(key.clone()))?;
                    (format!("labels.{key}"), value.as_str())
                }
            };
            let why = if value.is_empty() {
                Some("it is empty")
            } else if value.len() > MAX_VALUE {
                Some("it is longer than 63 bytes")
            } else {
                check(value)
            };
            if let Some(why) = why {
                return Err(TemplateError::Value {
                    placeholder,
                    value: value.to_owned(),
                    why,
                });
            }
            out.push_str(value);
        }
        Ok(out)
    }
}

impl Part {
    fn placeholder(name: &str) -> Result<Self, TemplateError> {
        Ok(match name {
            "deviceId" => Self::DeviceId,
            "fleet" => Self::Fleet,
            "namespace" => Self::Namespace,
            _ => match name.strip_prefix("labels.") {
                Some(key) if !key.is_empty() => Self::Label(key.to_owned()),
                _ => return Err(TemplateError::UnknownPlaceholder(name.to_owned())),
            },
        })
    }
}
