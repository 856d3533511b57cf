//! What holds for every message, however it came about.

use certwave_protocol::envelope::Unverified;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Fingerprint, Nonce};
use certwave_protocol::limits::MAX_EPOCH;
use certwave_protocol::message::Type;
use certwave_protocol::topic::{self, User};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::envelope::{MATERIAL, forge, header_and_payload, key_of};
use crate::samples::Sample;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
        Just(json!("AA==")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let names = select(vec!["A", "kind", "certificate", "leaf", "csr", "x"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Every place in a value, so that one can be picked.
fn places(value: &Value, here: &str, out: &mut Vec<String>) {
    out.push(here.to_owned());
    let escape = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(k, v)| places(v, &format!("{here}/{}", escape(k)), out)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, v)| places(v, &format!("{here}/{i}"), out)),
        _ => {}
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let count = MATERIAL.samples().len();
    (
        0..count,
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        0..=MAX_EPOCH,
        "[A-Za-z0-9][A-Za-z0-9._-]{0,55}",
        "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
    )
        .prop_map(|(i, session, nonce, epoch, device, broker)| {
            let mut sample = MATERIAL.samples().swap_remove(i);
            let payload = &mut sample.payload;
            payload.session = Nonce(session);
            payload.nonce = payload.nonce.map(|_| Nonce(nonce));
            payload.epoch = payload.epoch.map(|_| epoch);
            payload.device = device.parse().unwrap();
            payload.broker = broker.parse().unwrap();
            sample
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Unverified::parse(&bytes).is_err());
    }

    #[test]
    fn no_three_parts_make_the_reader_panic(text in r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}") {
        prop_assert!(Unverified::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn no_value_in_any_field_makes_the_reader_panic(which in any::<Index>(), place in any::<Index>(), value in any_json()) {
        let samples = MATERIAL.samples();
        let sample = which.get(&samples);
        let (header, payload) = header_and_payload(&MATERIAL.seal(sample));
        let mut whole = json!({"header": header, "payload": payload});
        let mut all = Vec::new();
        places(&whole, "", &mut all);
        *whole.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        let part = |name: &str| whole.get(name).cloned().unwrap_or_default();
        let _ = Unverified::parse(&forge(&part("header"), &part("payload"), MATERIAL.key(sample.by)));
    }

    #[test]
    fn what_is_sealed_can_be_read(sample in sample()) {
        let opened = Unverified::parse(&MATERIAL.seal(&sample)).and_then(|u| u.verify(key_of(sample.by)));
        prop_assert_eq!(opened, Ok(sample.payload));
    }

    #[test]
    fn any_changed_byte_is_refused(which in any::<Index>(), at in any::<Index>(), to in any::<u8>()) {
        let samples = MATERIAL.samples();
        let sample = which.get(&samples);
        let mut message = MATERIAL.seal(sample);
        let at = at.index(message.len());
        prop_assume!(message[at] != to);
        message[at] = to;
        let opened = Unverified::parse(&message).and_then(|u| u.verify(key_of(sample.by)));
        prop_assert!(opened.is_err(), "byte {} as {}", at, to);
    }

    #[test]
    fn any_cut_is_refused(which in any::<Index>(), at in any::<Index>()) {
        let samples = MATERIAL.samples();
        let sample = which.get(&samples);
        let message = MATERIAL.seal(sample);
        let cut = &message[..at.index(message.len())];
        prop_assert!(Unverified::parse(cut).and_then(|u| u.verify(key_of(sample.by))).is_err());
    }

    #[test]
    fn topics_are_read_as_they_are_written(device in "[A-Za-z0-9][A-Za-z0-9._-]{0,55}", n in 0_usize..11, claim: bool) {
        let user = match device.to_ascii_lowercase().parse::<ClaimName>() {
            Ok(name) if claim => User::Claim(name),
            _ => User::Device(device.parse().unwrap()),
        };
        let kind = Type::ALL[n];
        for prefix in [topic::DEFAULT_PREFIX, "a/b"] {
            let (up, down) = (topic::up(prefix, &user, kind), topic::down(prefix, &user, kind));
            prop_assert_eq!(topic::parse_up(prefix, &up), Some((user.clone(), kind)));
            prop_assert_eq!(topic::parse_down(prefix, &down), Some((user.clone(), kind)));
            prop_assert_eq!(topic::parse_up(prefix, &down), None);
            prop_assert_eq!(topic::parse_up("other", &up), None);
        }
    }

    #[test]
    fn no_topic_makes_the_reader_panic(topic in "[a-z+#~./$A-Z]{0,40}") {
        let _ = topic::parse_up("certwave", &topic);
        let _ = topic::parse_down("", &topic);
    }

    #[test]
    fn names_that_mqtt_or_the_system_use_are_no_devices(head in "[A-Za-z0-9]{0,3}", bad in "[~/+#$ \\x00-\\x1fäß]", tail in "[a-z]{0,3}") {
        let name = format!("{head}{bad}{tail}");
        prop_assert!(name.parse::<DeviceId>().is_err());
        prop_assert!(name.parse::<BrokerId>().is_err());
    }

    #[test]
    fn a_bundles_hash_depends_on_its_anchors_alone(mut anchors in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 1..5)) {
        let hash = Fingerprint::of_bundle(&anchors);
        anchors.reverse();
        anchors.push(anchors[0].clone());
        prop_assert_eq!(Fingerprint::of_bundle(&anchors), hash);
        anchors.push(b"one more anchor".to_vec());
        prop_assert_ne!(Fingerprint::of_bundle(&anchors), hash);
    }
}
