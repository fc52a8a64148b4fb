//! The outlier detector, with a manifest's defaults, on small labelled traces: which pods are bad from which evaluation
//! on is known, so that every verdict is right or wrong.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kubervisor::{
    api::{self, Context, Detectors},
    decide::{
        detect::{BreakerSelection, LifeStatus, Observation, Rule, Windows, evaluate},
        time::Timestamp,
    },
};
use serde_json::{Value, json};

const PODS: usize = 20;
const EVALUATIONS: usize = 60;
/// The first evaluation with a fault.
const ONSET: usize = 20;

/// Reproducible noise: xorshift, and the sum of twelve uniform numbers for a normal one.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// A manifest's rule for the latency in the payload, with these fields of `outlier` beside the pointer.
fn rule(fields: &Value) -> Rule {
    let mut outlier = json!({"pointer": "/latency"});
    outlier.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let resource = json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": {"name": "web"},
        "spec": {"service": "web", "breakers": [{"name": "slow", "outlier": outlier}]},
    });
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    api::parse("trace", &resource.to_string(), context).unwrap().remove(0).rules.remove(0)
}

/// The bad pods of each evaluation, when pod `n` reports `payload(look, n)`.
fn play(payload: impl Fn(usize, usize, &mut Noise) -> Value, seed: u64) -> Vec<BTreeSet<usize>> {
    play_by(&rule(&json!({})), payload, seed)
}

fn play_by(
    rule: &Rule,
    payload: impl Fn(usize, usize, &mut Noise) -> Value,
    seed: u64,
) -> Vec<BTreeSet<usize>> {
    let (mut windows, mut noise) = (Windows::default(), Noise(seed));
    let look = |look: usize| {
        let pod = |n: usize| Observation {
            uid: format!("{n:02}").into(),
            id: format!("web-{n}"),
            age: Duration::ZERO,
            status: LifeStatus::Live,
            heard: true,
            withheld: false,
            name_age: None,
            payload: Arc::new(payload(look, n, &mut noise)),
        };
        let pods: Vec<_> = (0..PODS).map(pod).collect();
        let now = Timestamp::from_unix_millis(5000 * i64::try_from(look).unwrap());
        let mut evaluation =
            evaluate(std::slice::from_ref(rule), now, &pods, &mut windows, BreakerSelection::Due);
        let opinions = evaluation.sources.remove(0);
        let bad = opinions.opinions().iter().enumerate().filter(|(_, (_, opinion))| opinion.objects());
        bad.map(|(n, _)| n).collect()
    };
    (0..EVALUATIONS).map(look).collect()
}

fn latency(value: f64) -> Value {
    json!({"latency": value, "name": "web"})
}

/// Seeds of the noise; each trace is played with all of them.
fn seeds() -> impl Iterator<Item = u64> {
    (1..=20).map(|n| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n))
}

#[test]
fn a_step_in_three_pods_is_found_within_three_evaluations_and_no_other_pod_is_bad() {
    let bad_pods = BTreeSet::from([2, 7, 11]);
    for seed in seeds() {
        let step = |look, n, noise: &mut Noise| {
            let normal = 100.0 + 5.0 * noise.normal();
            latency(if look >= ONSET && bad_pods.contains(&n) { 2.5 * normal } else { normal })
        };
        let played = play(step, seed);
        assert!(played[..ONSET + 2].iter().all(BTreeSet::is_empty), "seed {seed}: too early");
        assert!(
            played[ONSET + 2..].iter().all(|bad| *bad == bad_pods),
            "seed {seed}: {:?}",
            &played[ONSET..]
        );
    }
}

#[test]
fn a_common_fault_makes_no_pod_bad() {
    for seed in seeds() {
        let shared = |look, _, noise: &mut Noise| {
            let factor = if look >= ONSET { 8.0 } else { 1.0 };
            latency(factor * (100.0 + 5.0 * noise.normal()))
        };
        assert!(play(shared, seed).iter().all(BTreeSet::is_empty), "seed {seed}");
        let daily = |look: usize, _, noise: &mut Noise| {
            let wave = 1.0 + 0.8 * (look as f64 / 10.0).sin();
            latency(wave * (100.0 + 5.0 * noise.normal()))
        };
        assert!(play(daily, seed).iter().all(BTreeSet::is_empty), "seed {seed}: load of the day");
    }
}

#[test]
fn a_pod_that_is_always_a_third_slower_is_good_during_a_common_fault_too() {
    let by_spread = rule(&json!({"minRelativeDeviation": 0}));
    for seed in seeds() {
        let uneven = |look, n, noise: &mut Noise| {
            let (factor, slowness) = (if look >= ONSET { 4.0 } else { 1.0 }, if n == 3 { 1.35 } else { 1.0 });
            latency(factor * slowness * (100.0 + 5.0 * noise.normal()))
        };
        assert!(play(uneven, seed).iter().all(BTreeSet::is_empty), "seed {seed}");
        let found = play_by(&by_spread, uneven, seed).iter().filter(|bad| bad.contains(&3)).count();
        assert!(found > EVALUATIONS / 2, "seed {seed}: it is far in MADs, at {found} evaluations");
    }
}

#[test]
fn a_ratio_that_falls_by_a_fifth_stands_out_where_less_is_bad() {
    for direction in ["low", "both"] {
        let rule = rule(&json!({"direction": direction}));
        for seed in seeds() {
            let ratio = |look, n, noise: &mut Noise| {
                let usual = if look >= ONSET && n == 5 { 0.8 } else { 0.985 };
                latency((usual + 0.003 * noise.normal()).min(1.0))
            };
            let played = play_by(&rule, ratio, seed);
            let only = BTreeSet::from([5]);
            assert!(
                played[..ONSET + 2].iter().all(BTreeSet::is_empty),
                "{direction}, seed {seed}: too early"
            );
            assert!(played[ONSET + 2..].iter().all(|bad| *bad == only), "{direction}, seed {seed}");
        }
    }
}

#[test]
fn missing_and_invalid_values_make_no_pod_bad_and_hide_none() {
    for seed in seeds() {
        let holes = |look, n, noise: &mut Noise| {
            let (value, hole) = (100.0 + 5.0 * noise.normal(), noise.uniform());
            match n {
                _ if hole < 0.1 => json!(""),
                _ if hole < 0.15 => json!({"latency": "NaN"}),
                4 if look >= ONSET => latency(2.5 * value),
                _ => latency(value),
            }
        };
        let played = play(holes, seed);
        assert!(played[..ONSET].iter().all(BTreeSet::is_empty), "seed {seed}");
        assert!(played.iter().all(|bad| bad.is_subset(&BTreeSet::from([4]))), "seed {seed}");
        // An evaluation without a value has no verdict; all others have one.
        let seen = played[ONSET + 6..].iter().filter(|bad| bad.contains(&4)).count();
        assert!(seen * 100 >= (EVALUATIONS - ONSET - 6) * 60, "seed {seed}: seen {seen} times");
    }
}

#[test]
fn occasional_spikes_are_good() {
    for seed in seeds() {
        let spikes = |look: usize, n, noise: &mut Noise| {
            let normal = 100.0 + 5.0 * noise.normal();
            latency(if n == 3 && look.is_multiple_of(5) { normal + 200.0 } else { normal })
        };
        assert!(play(spikes, seed).iter().all(BTreeSet::is_empty), "seed {seed}: one look of five");
    }
}

#[test]
fn a_recovered_pod_is_good_again_after_three_evaluations() {
    let recovers = |look, n, noise: &mut Noise| {
        let normal = 100.0 + 5.0 * noise.normal();
        latency(if n == 3 && (ONSET..ONSET + 10).contains(&look) { 2.5 * normal } else { normal })
    };
    for seed in seeds() {
        let played = play(recovers, seed);
        let bad: Vec<_> = (0..EVALUATIONS).filter(|look| played[*look].contains(&3)).collect();
        assert_eq!(bad, (ONSET + 2..ONSET + 12).collect::<Vec<_>>(), "seed {seed}");
    }
}
