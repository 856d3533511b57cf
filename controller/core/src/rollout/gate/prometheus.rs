//! What an answer of Prometheus' HTTP API (`/api/v1/query`) means: exactly one sample is a value, all else is no answer.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::webhook::not_json;
use super::{Answer, clip};

#[derive(Deserialize)]
struct Body {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// One element of an instant vector. Native histograms have no `value`.
#[derive(Deserialize)]
struct Element {
    value: Option<Sample>,
}

/// Unix time in seconds and the value as text.
#[derive(Deserialize)]
struct Sample(#[allow(dead_code)] f64, String);

/// Reads an HTTP answer: well means a value above `above` and below `below`, where given; at least one must be.
pub fn answer(status: u16, body: &[u8], above: Option<&str>, below: Option<&str>) -> Answer {
    let bounds = match Bounds::parse(above, below) {
        Ok(bounds) => bounds,
        Err(detail) => return Answer::Unknown(detail),
    };
    match value(status, body) {
        Ok(text) => bounds.compare(&text),
        Err(detail) => Answer::Unknown(clip(&detail)),
    }
}

/// The one sample's value as Prometheus wrote it, or why there is none.
fn value(status: u16, body: &[u8]) -> Result<String, String> {
    // Prometheus explains its refusals (400, 422, 503) in JSON too; a proxy before it does not.
    let body = match serde_json::from_slice::<Body>(body) {
        Ok(body) if status == 200 || body.status == "error" => body,
        Err(error) if status == 200 => return Err(not_json(&error, "an answer of Prometheus")),
        _ => return Err(format!("answers with HTTP status {status}")),
    };
    if body.status != "success" || status != 200 {
        let (kind, text) = (body.error_type, body.error.unwrap_or_default());
        return Err(format!(
            "Prometheus refuses the query (HTTP status {status}): {kind}: {text}"
        ));
    }
    if let Some(warning) = body.warnings.first() {
        return Err(format!("Prometheus warns that the result may be wrong: {warning}"));
    }
    let data = body.data.ok_or("answers without a result")?;
    let sample = match data.kind.as_str() {
        "scalar" => read::<Sample>(data.result)?,
        "vector" => {
            let elements: Vec<Element> = read(data.result)?;
            let count = elements.len();
            let mut elements = elements.into_iter();
            match (elements.next(), count) {
                (Some(element), 1) => element
                    .value
                    .ok_or("the query's result is a histogram; one number is needed")?,
                (None, _) => return Err("the query has no result; one is needed".to_owned()),
                _ => {
                    return Err(format!(
                        "the query has {count} results; one is needed, so aggregate them"
                    ));
                }
            }
        }
        kind => {
            return Err(format!(
                "the query's result is a {kind}; a scalar or a vector of one is needed"
            ));
        }
    };
    Ok(sample.1)
}

fn read<T: DeserializeOwned>(result: Value) -> Result<T, String> {
    serde_json::from_value(result).map_err(|error| not_json(&error, "a result of Prometheus"))
}

struct Bounds {
    above: Option<f64>,
    below: Option<f64>,
}

impl Bounds {
    fn parse(above: Option<&str>, below: Option<&str>) -> Result<Self, String> {
        let number = |name: &str, text: Option<&str>| match text.map(|text| (text, text.parse::<f64>())) {
            None => Ok(None),
            Some((_, Ok(bound))) if bound.is_finite() => Ok(Some(bound)),
            Some((text, _)) => Err(clip(&format!("\"{name}\" is no decimal number: {text}"))),
        };
        let bounds = Self {
            above: number("above", above)?,
            below: number("below", below)?,
        };
        if bounds.above.is_none() && bounds.below.is_none() {
            return Err("the gate has neither \"above\" nor \"below\"".to_owned());
        }
        Ok(bounds)
    }

    fn compare(&self, text: &str) -> Answer {
        // Rust reads "NaN", "+Inf" and "-Inf" as Prometheus writes them.
        let value = match text.parse::<f64>() {
            Ok(value) if !value.is_nan() => value,
            Ok(_) => return Answer::Unknown("the query's result is NaN: most likely nothing was measured".to_owned()),
            Err(_) => return Answer::Unknown("the query's result is no number".to_owned()),
        };
        let mut wanted = Vec::new();
        let mut well = true;
        if let Some(above) = self.above {
            well &= value > above;
            wanted.push(format!("above {above}"));
        }
        if let Some(below) = self.below {
            well &= value < below;
            wanted.push(format!("below {below}"));
        }
        let wanted = wanted.join(" and ");
        match (well, value.is_finite()) {
            (true, true) => Answer::Well(format!("{value} is {wanted}")),
            // A division by zero that happens to be on the good side proves nothing.
            (true, false) => Answer::Unknown(format!("the query's result is infinite ({value}): it proves nothing")),
            (false, _) => Answer::Bad(format!("{value} is not {wanted}")),
        }
    }
}
