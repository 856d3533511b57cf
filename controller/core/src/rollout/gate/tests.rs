#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::online::{self, Online};
use super::*;
use crate::rollout::strategy::GateSource;

fn gate(every: Millis, failure_limit: u32, error_limit: u32) -> Gate {
    Gate {
        source: GateSource::Online {
            min_percent_of_before: 98,
        },
        every,
        failure_limit,
        error_limit,
    }
}

fn well() -> Answer {
    Answer::Well("fine".to_owned())
}

fn bad() -> Answer {
    Answer::Bad("not fine".to_owned())
}

fn unknown() -> Answer {
    Answer::Unknown("down".to_owned())
}

fn after(answers: impl IntoIterator<Item = (Millis, Answer)>) -> GateState {
    let mut state = GateState::default();
    for (at, answer) in answers {
        observe(&mut state, at, answer);
    }
    state
}

#[test]
fn a_wave_waits_for_a_good_answer_that_came_since() {
    let gate = gate(60_000, 0, 4);
    assert_eq!(verdict(&gate, &GateState::default(), 0), Verdict::Pending);
    let state = after([(100, well())]);
    assert_eq!(verdict(&gate, &state, 100), Verdict::Well);
    assert_eq!(
        verdict(&gate, &state, 101),
        Verdict::Pending,
        "what was said before does not count"
    );
}

#[test]
fn a_bad_answer_within_the_limit_asks_for_a_good_one_after_it() {
    let gate = gate(60_000, 1, 4);
    let mut state = after([(100, well()), (200, bad())]);
    assert_eq!(verdict(&gate, &state, 0), Verdict::Pending);
    observe(&mut state, 300, unknown());
    assert_eq!(
        verdict(&gate, &state, 0),
        Verdict::Pending,
        "an error makes nothing well"
    );
    observe(&mut state, 400, well());
    assert_eq!(verdict(&gate, &state, 0), Verdict::Well);
    observe(&mut state, 500, bad());
    observe(&mut state, 600, well());
    assert_eq!(
        verdict(&gate, &state, 0),
        Verdict::Bad("not fine".to_owned()),
        "one more than allowed stays"
    );
}

#[test]
fn errors_count_in_a_row_only() {
    let gate = gate(60_000, 0, 1);
    let mut state = after([(1, well()), (2, unknown())]);
    assert_eq!(
        verdict(&gate, &state, 0),
        Verdict::Well,
        "one failure to answer is within the limit"
    );
    observe(&mut state, 3, unknown());
    assert_eq!(verdict(&gate, &state, 0), Verdict::Unknown("down".to_owned()));
    observe(&mut state, 4, well());
    observe(&mut state, 5, unknown());
    assert_eq!(verdict(&gate, &state, 0), Verdict::Well);
}

#[test]
fn of_several_gates_the_worst_counts() {
    let bad = Verdict::Bad("no".to_owned());
    let unknown = Verdict::Unknown("down".to_owned());
    assert_eq!(together(&[]), Gates::Well);
    assert_eq!(together(&[Verdict::Well, Verdict::Pending]), Gates::Pending);
    assert_eq!(
        together(&[unknown.clone(), Verdict::Pending, Verdict::Well]),
        Gates::Unknown("down")
    );
    assert_eq!(together(&[Verdict::Well, bad, unknown]), Gates::Bad("no"));
}

#[test]
fn a_gate_is_asked_at_once_and_then_at_its_pace() {
    let gate = gate(60_000, 0, 0);
    assert!(due(&gate, &GateState::default(), 0));
    let state = after([(1_000, well())]);
    assert!(!due(&gate, &state, 60_999));
    assert!(due(&gate, &state, 61_000));
}

#[test]
fn a_state_survives_being_stored_also_by_an_older_release() {
    let state = after([(1, well()), (2, bad()), (3, unknown())]);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<GateState>(&text).unwrap(), state);
    assert_eq!(serde_json::from_str::<GateState>("{}").unwrap(), GateState::default());
}

#[test]
fn text_from_outside_becomes_one_short_line() {
    assert_eq!(clip(" a\nb\u{1b}[31mc\r\n"), "a b [31mc");
    let long = clip(&"ä".repeat(10_000));
    assert_eq!(long.chars().count(), MAX_DETAIL);
    assert!(long.ends_with('…'));
    assert_eq!(clip(&"x".repeat(MAX_DETAIL)), "x".repeat(MAX_DETAIL));
}

fn prometheus(body: &str) -> Answer {
    prometheus::answer(200, body.as_bytes(), Some("0.99"), None)
}

fn vector(elements: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{elements}]}}}}"#)
}

fn element(value: &str) -> String {
    format!(r#"{{"metric":{{"job":"x"}},"value":[1700000000.123,"{value}"]}}"#)
}

fn says(answer: Answer, words: &str) {
    let Answer::Unknown(detail) = answer else {
        panic!("{answer:?} is not unknown");
    };
    assert!(detail.contains(words), "{detail}");
}

#[test]
fn one_sample_of_prometheus_is_compared_with_the_bounds() {
    assert_eq!(
        prometheus(&vector(&element("0.995"))),
        Answer::Well("0.995 is above 0.99".to_owned())
    );
    assert_eq!(
        prometheus(&vector(&element("0.99"))),
        Answer::Bad("0.99 is not above 0.99".to_owned())
    );
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000,"3"]}}"#;
    let both = |above, below| prometheus::answer(200, scalar.as_bytes(), above, below);
    assert_eq!(
        both(Some("2"), Some("4")),
        Answer::Well("3 is above 2 and below 4".to_owned())
    );
    assert_eq!(both(None, Some("3")), Answer::Bad("3 is not below 3".to_owned()));
    says(both(None, None), "neither");
    says(both(Some("much"), None), "no decimal number: much");
    says(both(Some("NaN"), None), "no decimal number");
}

#[test]
fn an_answer_of_prometheus_that_is_not_one_number_is_unknown() {
    says(prometheus(&vector("")), "no result");
    says(
        prometheus(&vector(&format!("{},{}", element("1"), element("1")))),
        "2 results",
    );
    says(prometheus(&vector(&element("NaN"))), "NaN");
    says(prometheus(&vector(&element("+Inf"))), "infinite");
    assert_eq!(
        prometheus(&vector(&element("-Inf"))),
        Answer::Bad("-inf is not above 0.99".to_owned())
    );
    says(prometheus(&vector(&element("one"))), "no number");
    says(
        prometheus(&vector(r#"{"metric":{},"histogram":[1,{"count":"1"}]}"#)),
        "histogram",
    );
    says(
        prometheus(&vector(r#"{"metric":{},"value":["x"]}"#)),
        "not a result of Prometheus",
    );
    for kind in ["matrix", "string"] {
        let body = format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[]}}}}"#);
        says(prometheus(&body), kind);
    }
    says(prometheus(r#"{"status":"success"}"#), "without a result");
    says(prometheus("<html>"), "not JSON");
    says(prometheus(r#"{"hello":"secret"}"#), "not an answer of Prometheus");
    let warned = vector(&element("1")).replace("\"data\"", "\"warnings\":[\"store\\nX is down\"],\"data\"");
    says(
        prometheus(&warned),
        "warns that the result may be wrong: store X is down",
    );
}

#[test]
fn a_refusal_of_prometheus_is_unknown_and_says_why() {
    let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    says(
        prometheus::answer(400, refused, Some("1"), None),
        "bad_data: parse error",
    );
    says(
        prometheus::answer(200, refused, Some("1"), None),
        "bad_data: parse error",
    );
    says(prometheus::answer(503, b"<html>", Some("1"), None), "HTTP status 503");
    // Status and body that contradict each other are no answer.
    says(
        prometheus::answer(500, vector(&element("7")).as_bytes(), Some("1"), None),
        "HTTP status 500",
    );
}

#[test]
fn only_a_clear_word_of_a_webhook_counts() {
    let answer = |body: &str| webhook::answer(200, body.as_bytes());
    assert_eq!(answer(r#"{"passed":true}"#), Answer::Well("passed".to_owned()));
    assert_eq!(
        answer(r#"{"passed":true,"message":"all meters report","more":1}"#),
        Answer::Well("all meters report".to_owned())
    );
    assert_eq!(
        answer(r#"{"passed":false,"message":"12 are silent"}"#),
        Answer::Bad("12 are silent".to_owned())
    );
    assert_eq!(
        answer(r#"{"passed":false,"message":" "}"#),
        Answer::Bad("not passed".to_owned())
    );
    says(answer("{}"), "without \"passed\"");
    says(answer(r#"{"passed":"true"}"#), "not an object with");
    says(answer(""), "not JSON");
    for status in [201, 204, 302, 404, 500] {
        says(webhook::answer(status, br#"{"passed":true}"#), &status.to_string());
    }
}

#[test]
fn devices_online_are_compared_with_before() {
    let answer = |before, now| online::answer(Online { before, now }, 98);
    assert!(matches!(answer(Some(100), 98), Answer::Well(_)));
    assert!(matches!(answer(Some(100), 97), Answer::Bad(_)));
    assert!(matches!(answer(Some(0), 0), Answer::Well(_)));
    assert!(matches!(answer(Some(u32::MAX), u32::MAX), Answer::Well(_)));
    assert!(matches!(answer(None, 5), Answer::Unknown(_)));
}

fn answers() -> impl Strategy<Value = Vec<(Millis, Answer)>> {
    let answer = prop_oneof![Just(well()), Just(bad()), Just(unknown())];
    prop::collection::vec((0..10_000_000i64, answer), 0..40)
}

proptest! {
    #[test]
    fn bad_never_becomes_well_by_errors(before in answers(), errors in 1..20usize, failures in 0..3u32, allowed in 0..30u32, since: i64) {
        let gate = gate(1000, failures, allowed);
        let mut state = after(before);
        let was = verdict(&gate, &state, since);
        for at in 0..errors {
            observe(&mut state, i64::try_from(at).unwrap(), unknown());
            let is = verdict(&gate, &state, since);
            prop_assert!(is == was || matches!(is, Verdict::Unknown(_)), "{was:?} became {is:?}");
            prop_assert!(!matches!(was, Verdict::Bad(_)) || is == was);
        }
    }

    #[test]
    fn more_bad_answers_than_allowed_are_bad_in_any_order(answers in answers(), failures in 0..5u32, since: i64) {
        let gate = gate(1000, failures, 3);
        let count = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Bad(_))).count();
        let found = matches!(verdict(&gate, &after(answers), since), Verdict::Bad(_));
        prop_assert_eq!(found, count > failures as usize);
    }

    #[test]
    fn well_needs_a_good_answer_since(answers in answers(), since in 0..10_000_000i64) {
        let gate = gate(1000, 100, 100);
        let good = answers.iter().any(|(at, answer)| matches!(answer, Answer::Well(_)) && *at >= since);
        prop_assert!(verdict(&gate, &after(answers), since) != Verdict::Well || good);
    }

    /// Asked whenever due, on a clock that jumps: the gate is never silent for longer than its pace, by that clock or by true
    /// time, and a wave whose time began on the clock as it is now gets its good answer.
    #[test]
    fn a_clock_that_jumps_does_not_stop_it(jumps in prop::collection::vec(-100_000_000i64..100_000_000, 1..20), every in 1000..100_000i64) {
        let gate = gate(every, 0, 0);
        let mut state = GateState::default();
        let mut clock = 0i64;
        for jump in jumps {
            clock += jump;
            let since = clock;
            let mut waited = 0;
            while verdict(&gate, &state, since) != Verdict::Well || state.last.is_some_and(|last| last > clock) {
                prop_assert!(waited <= every, "not asked for {waited} ms");
                if due(&gate, &state, clock) {
                    observe(&mut state, clock, well());
                } else {
                    clock += 500;
                    waited += 500;
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_fail_or_say_well(status in 0..600u16, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let unknown = |answer: Answer| matches!(answer, Answer::Unknown(_));
        prop_assert!(unknown(prometheus::answer(status, &body, Some("0"), None)));
        prop_assert!(unknown(webhook::answer(status, &body)));
    }
}
