//! What brokers and what runs beside them say.

use std::fmt::Debug;

use certwave_controller::companion::Index;
use certwave_controller::door::mosquitto::wire::{Hint, Kick, Kicked, Loaded};
use certwave_protocol::message::Online;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::targets::Target;

/// All of them: JSON that is no message of a device's.
pub(super) fn targets() -> Vec<Target> {
    let session = "AQIDBAUGBwgJCgsMDQ4PEA";
    let scope = json!({ "issuer": "0c8403556cfd08068da02cbf01da90af9c467c83", "partition": "2026-11", "number": 7 });
    let one = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    vec![
        json_of::<Online>("online", one(json!({ "v": 1, "online": true, "session": session }))),
        json_of::<Index>(
            "crl-index",
            one(json!({ "crls": [{ "partition": "2026-11", "number": 7 }] })),
        ),
        json_of::<Hint>("crl-hint", one(json!({ "scopes": [scope] }))),
        json_of::<Loaded>(
            "crl-loaded",
            one(json!({ "session": session, "sequence": 3, "scopes": [scope], "error": "disk full" })),
        ),
        json_of::<Kick>("kick", one(json!({ "order": session, "devices": ["pump-0042"] }))),
        json_of::<Kicked>(
            "kicked",
            one(json!({ "order": session, "failed": ["pump-0042"], "error": "no connection" })),
        ),
    ]
}

/// What was read, once written, is read again as the same.
fn json_of<T>(name: &'static str, seeds: Vec<Vec<u8>>) -> Target
where
    T: DeserializeOwned + Serialize + PartialEq + Debug + 'static,
{
    Target::new(name, seeds, |input| {
        let Ok(read) = serde_json::from_slice::<T>(input) else {
            return false;
        };
        let written = serde_json::to_vec(&read).expect("what was read can be written");
        let again: T = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, read, "a message changes by being read");
        true
    })
}
