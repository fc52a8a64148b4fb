//! The labelled traces through a real Prometheus and the command line: the same F1 as the direct call of the detectors,
//! to the digit.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    backfill::Backfill,
    shop::ago,
    stage::{Stage, kubervisor, said},
    traces::{Delivery, Kind, Trace},
    trial::{Candidate, Score},
};

const EVERY: u64 = 5;

fn write(history: &mut Backfill, number: u64, trace: &Trace, start: u64) {
    for pod in 0..trace.pods() {
        for (look, samples) in trace.looks.iter().enumerate() {
            let (sample, at) = (samples[pod], (start + EVERY * look as u64) as f64);
            if trace.unanswered.contains(&look) {
                continue;
            }
            let mut add = |metric: &str, labels: &str, value: f64| {
                let labels = format!("trace=\"{number}\",pod=\"p{pod}\"{labels}");
                match sample.delivery {
                    Delivery::Arrives => history.sample(metric, &labels, value, at),
                    Delivery::NoNumber => history.sample(metric, &labels, f64::NAN, at),
                    Delivery::Twice => {
                        history.sample(metric, &labels, value, at);
                        history.sample(metric, &format!("{labels},copy=\"1\""), value, at);
                    }
                    Delivery::Missing | Delivery::Old => {}
                }
            };
            add("latency", "", sample.latency);
            add("events", ",code=\"200\"", sample.requests - sample.failed);
            add("events", ",code=\"500\"", sample.failed);
        }
    }
}

/// A policy that only judges: a withheld pod would be no peer, and the direct call withholds none.
fn policy(candidate: Candidate, server: &str, number: u64) -> Value {
    let query = |promql: String| json!({"prometheusService": server, "promQL": promql, "podNamekey": "pod"});
    let mut breaker = json!({"name": "x", "evaluationPeriod": EVERY});
    match candidate {
        Candidate::OutlierByQuery => breaker["outlier"] = query(format!("latency{{trace=\"{number}\"}}")),
        Candidate::Discrete => {
            let mut discrete = query(format!("events{{trace=\"{number}\"}}"));
            (discrete["key"], discrete["goodValues"]) = ("code".into(), json!(["200"]));
            breaker["discreteValueOutOfList"] = discrete;
        }
        other => panic!("{other:?}"),
    }
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "web"},
        "spec": {"service": "web", "paused": true, "breakers": [breaker]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_traces_from_a_real_prometheus_have_the_f1_of_the_direct_call() {
    let (stage, start) = (Stage::new(), ago(86_400));
    // A ramp is unclear before it is bad, which labels cannot say.
    let numbers: Vec<u64> = (0..14).filter(|number| Trace::new(*number).kind != Kind::Ramp).collect();
    let mut history = Backfill::default();
    for number in &numbers {
        write(&mut history, *number, &Trace::new(*number), start);
    }
    // A missing sample is missing: the server would repeat the one before for 5 minutes.
    let prometheus = history.serve(stage.directory(), stage.ip(200), &["--query.lookback-delta=4s"]).await;
    let server = prometheus.address.to_string();
    let mut hits = 0;
    for number in numbers {
        let trace = Trace::new(number);
        let at = |look: usize| start + EVERY * look as u64;
        let mut labels = "pod,from,to\nnone,1,2\n".to_owned();
        for fault in &trace.faults {
            writeln!(labels, "p{},{},{}", fault.pod, at(fault.bad.start), at(fault.bad.end)).unwrap();
        }
        let labels = stage.write("labels.csv", &labels);
        for candidate in [Candidate::OutlierByQuery, Candidate::Discrete] {
            let file = stage.write("policy.json", &policy(candidate, &server, number).to_string());
            let (from, to) = (at(0).to_string(), at(trace.looks.len()).to_string());
            let (file, labels) = (file.to_str().unwrap(), labels.to_str().unwrap());
            let arguments =
                ["report", "-f", file, "--from", &from, "--to", &to, "-o", "json", "--labels", labels];
            let output = kubervisor(&arguments, &[]);
            assert!(output.status.success(), "{}", said(&output));
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let (score, direct) = (&report["policies"][0]["score"], Score::of(candidate, &trace));
            let counts = ["hits", "misses", "falseAlarms"].map(|name| score[name].as_u64().unwrap());
            assert_eq!(
                counts,
                [direct.hits, direct.misses, direct.false_alarms],
                "{number} {:?} {candidate:?}",
                trace.kind
            );
            let all = 2 * direct.hits + direct.misses + direct.false_alarms;
            // JSON's reader is exact to 15 digits.
            let digits = |f1: f64| format!("{f1:.12}");
            let expected = (all > 0).then(|| digits(direct.f1()));
            assert_eq!(score["f1"].as_f64().map(digits), expected, "{number} {candidate:?}");
            hits += direct.hits;
        }
    }
    assert!(hits > 1000, "only {hits} hits were compared");
}
