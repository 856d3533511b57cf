//! What a webhook's answer means: status 200 with `{"passed": true|false, "message": "…"}`, and nothing else is an answer.

use serde::Deserialize;
use serde_json::error::Category;

use super::{Answer, clip};

#[derive(Deserialize)]
struct Body {
    passed: Option<bool>,
    message: Option<String>,
}

/// Reads an HTTP answer. Nothing of a body that is no answer is repeated: it may come from somebody else's service.
pub fn answer(status: u16, body: &[u8]) -> Answer {
    if status != 200 {
        return Answer::Unknown(format!("answers with HTTP status {status}; 200 is needed"));
    }
    let body: Body = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Answer::Unknown(not_json(&error, "an object with \"passed\"")),
    };
    let message = body.message.as_deref().map(clip).filter(|message| !message.is_empty());
    match body.passed {
        Some(true) => Answer::Well(message.unwrap_or_else(|| "passed".to_owned())),
        Some(false) => Answer::Bad(message.unwrap_or_else(|| "not passed".to_owned())),
        None => Answer::Unknown("answers without \"passed\": true or false".to_owned()),
    }
}

/// Why JSON could not be read, without a word of what was read.
pub(super) fn not_json(error: &serde_json::Error, wanted: &str) -> String {
    match error.classify() {
        Category::Data => format!("answers with JSON that is not {wanted}"),
        _ => format!(
            "answers with something that is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ),
    }
}
