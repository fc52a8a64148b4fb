//! The canonical form: same value, idempotent, and equal to Python's output.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use kubervisor::decide::canonical::canonical;
use proptest::prelude::*;
use serde_json::Value;

/// Any JSON value, a few levels deep.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinity", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..8).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_canonical_form_is_the_same_value_in_ascii_and_canonical_itself(value in json(), pretty: bool) {
        let raw = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let once = canonical(&raw).unwrap();
        prop_assert!(once.iter().all(|byte| (b' '..=b'~').contains(byte)));
        // Parsed from `raw`, because serde_json may round the last digit of a double.
        let value: Value = serde_json::from_slice(&raw).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&once).unwrap(), value);
        prop_assert_eq!(canonical(&once).unwrap(), once);
    }

    #[test]
    fn no_bytes_make_it_panic_and_serde_json_accepts_all_that_it_accepts(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(text) = canonical(&raw) {
            prop_assert_eq!(serde_json::from_slice::<Value>(&raw).unwrap(), serde_json::from_slice::<Value>(&text).unwrap());
        }
    }

    #[test]
    fn text_of_json_pieces_is_accepted_exactly_when_serde_json_accepts_it(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"\\u00e9\\ud83d\\ude00\"", "\"\\ud800\"", "\"\\\\\"", " ", "1", "-0.0", "1e5", "null",
        ]), 0..12),
    ) {
        let raw = pieces.concat();
        prop_assert_eq!(canonical(raw.as_bytes()).is_ok(), serde_json::from_str::<Value>(&raw).is_ok(), "{}", raw);
    }
}

/// Python's canonical form of `raw`.
fn python(raw: &str) -> String {
    let program = "import json, sys; sys.stdout.write(json.dumps(json.loads(sys.stdin.buffer.read()), sort_keys=True, separators=(',', ':')))";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test: install it");
    child.stdin.take().unwrap().write_all(raw.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{raw}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn python_gives_the_same_bytes_for_every_value() {
    let pods = [
        r#" {"b": [1, 2.5, -3e-07, {"y": null, "x": [true, false]}], "a": "" } "#,
        r#"{"é": "ü\u0000\u001f\u007f\u0080", "e": "\/\b\f\n\r\t\"\\", "\ud83d\ude00": "😀 \ue000 \uffff"}"#,
        r#"{"twice": 1, "tw\u0069ce": 2, "": {}, "list": [[], {}, [[]]]}"#,
        "[123456789012345678901234567890, 0.1, -1, 1e+16, 12345.678]",
        "\"\u{10ffff}\u{feff}\u{200b}\"",
        "{\"\u{ffff}\": 1, \"\u{10000}\": 2, \"Z\": 3, \"z\": 4}",
    ];
    for raw in pods {
        assert_eq!(String::from_utf8(canonical(raw.as_bytes()).unwrap()).unwrap(), python(raw), "{raw}");
    }
}
