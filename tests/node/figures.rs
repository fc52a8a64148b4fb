//! Figures of the node's tests: printed, and kept in `target/node.json`.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::ROOT;

/// Prints the median and the 95th percentile of these times, in milliseconds, beside the goal; both, for a test's bound.
pub(crate) fn times(what: &str, mut taken: Vec<Duration>, goal: &str) -> (Duration, Duration) {
    taken.sort_unstable();
    let at = |share: usize| taken[(taken.len() * share).div_ceil(100).saturating_sub(1)];
    let (median, p95) = (at(50), at(95));
    let text = format!(
        "median {:.0} ms, p95 {:.0} ms, worst {:.0} ms of {}",
        ms(median),
        ms(p95),
        ms(at(100)),
        taken.len()
    );
    keep(what, &text, goal, &json!({"median_ms": ms(median), "p95_ms": ms(p95), "runs": taken.len()}));
    (median, p95)
}

/// Prints one number.
pub(crate) fn number(what: &str, value: f64, unit: &str, goal: &str) {
    let digits = usize::from(value.fract() != 0.0);
    keep(what, format!("{value:.digits$} {unit}").trim_end(), goal, &json!({"value": value, "unit": unit}));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn keep(what: &str, text: &str, goal: &str, value: &Value) {
    println!("figure: {what}: {text} (goal: {goal})");
    let path = Path::new(ROOT).join("target/node.json");
    let kept = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let mut kept = kept.unwrap_or_else(|| json!({}));
    kept[what] = value.clone();
    fs::write(path, format!("{kept:#}\n")).unwrap();
}
