//! One installation from `helm install` to `helm uninstall`, with real pods under a steady load and a table of what each
//! step took. It is a test, and what `make node-demo` plays.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    application::Application,
    cluster::{Space, client, shell},
    figures,
    gate::{Detector, gate},
    load::{Answers, Load},
    release,
};

const PODS: usize = 6;
const PER_SECOND: u32 = 200;

pub(crate) async fn an_installation_from_install_to_uninstall_under_load_fails_no_request() {
    release::gone();
    let client = client().await;
    println!("\n{:<66} {:>8} {:>9} {:>7}", "step", "took", "requests", "failed");
    release::namespace();
    let mut table = Table::default();
    table.row("helm install: both replicas Ready", release::deploy("install", &[]));
    let (space, began) = (Space::create(&client, "shop").await, Instant::now());
    let application = Application::start(&client, space.name, PODS).await;
    shell("kubectl -n shop create poddisruptionbudget shop --selector=set=shop --min-available=4");
    table.row(&format!("kubectl apply: {PODS} HTTP pods available"), began.elapsed());
    let load = Load::start(application.address, PER_SECOND);
    let detector = Detector::start(load.answers.clone()).await;
    let began = Instant::now();
    gate(space.name, &detector.breaker(), &json!({"defaultActivator": {"mode": "periodic", "period": 2}}));
    table.answered(&load, "the resource is Ready, the Service's selector has the switch", began.elapsed());

    fails_and_recovers(&application, &load, &mut table).await;
    upkeep(&application, &load, &detector, &mut table).await;
    uninstall(&application, &load, &detector, &mut table).await;

    let answers = load.end().await;
    println!("\n{:<24} {:>8} {:>17}", "requests by pod", "answered", "with its own 500");
    for (pod, (answered, errors)) in errors_by_pod(&answers) {
        println!("{pod:<24} {answered:>8} {errors:>17}");
    }
    println!();
    let failed = answers.failed_by_us();
    let what = "requests failed by our hand: install, error, restart, upgrade, rollback, drain, uninstall";
    figures::number(what, failed.len() as f64, &format!("of {}", answers.0.len()), "0");
    assert!(failed.is_empty(), "{failed:?}");
    space.delete(&client).await;
}

/// Prints a row for each step as it ends.
#[derive(Default)]
struct Table {
    /// Requests of the earlier rows.
    requests: usize,
}

impl Table {
    /// A step without load.
    fn row(&self, step: &str, took: Duration) {
        println!("{step:<66} {:>6.2} s", took.as_secs_f64());
    }

    /// A step under load, with the requests since the row before. Requests that got no answer have failed.
    fn answered(&mut self, load: &Load, step: &str, took: Duration) {
        let so_far = load.so_far();
        let failed = so_far.failed_by_us().len();
        let asked = so_far.0.len() - self.requests;
        println!("{step:<66} {:>6.2} s {asked:>9} {failed:>7}", took.as_secs_f64());
        self.requests = so_far.0.len();
        assert_eq!(failed, 0, "{step}: {:?}", so_far.failed_by_us());
    }
}

/// One of the pods answers errors, leaves the traffic, recovers, and comes back.
async fn fails_and_recovers(application: &Application, load: &Load, table: &mut Table) {
    let bad = application.pods().await.into_keys().next().unwrap();
    let began = Instant::now();
    application.fail(&bad).await;
    application.has_traffic(&bad, "no").await;
    let last = load.leaves(&bad, began).await;
    let first = load.so_far().first_error(&bad, began).unwrap();
    table.answered(load, "a pod answers errors: from the first one to its last connection", last - first);
    let shown = [("tree", "shop"), ("explain", bad.as_str())].map(|(verb, name)| {
        let plugin = env!("CARGO_BIN_EXE_kubectl-kubervisor");
        (format!("{verb} {name}"), shell(&format!("{plugin} --namespace shop --color never {verb} {name}")))
    });
    application.recover(&bad).await;
    let recovered = Instant::now();
    application.has_traffic(&bad, "yes").await;
    load.returns(&bad, Instant::now()).await;
    table.answered(load, "it recovers: until it gets connections again", recovered.elapsed());
    for (command, said) in shown {
        println!("\n  while it was withheld: $ kubectl kubervisor {command}");
        said.lines().for_each(|line| println!("  {line}"));
    }
    println!();
}

/// What an administrator does to controllers and pods, while one pod stays withheld.
async fn upkeep(application: &Application, load: &Load, detector: &Detector, table: &mut Table) {
    shell(
        "kubectl -n shop patch kvs shop --type merge -p '{\"spec\":{\"defaultActivator\":{\"period\":3600}}}'",
    );
    let bad = application.pods().await.into_keys().next().unwrap();
    detector.name(&[&bad]);
    application.has_traffic(&bad, "no").await;
    let withheld = load.leaves(&bad, Instant::now()).await;
    let mut step = |name: &str, action: &dyn Fn()| {
        let began = Instant::now();
        action();
        shell("kubectl -n kubervisor rollout status deployment/kubervisor --timeout=60s");
        table.answered(load, name, began.elapsed());
        assert_eq!(load.so_far().since(&bad, withheld), 0, "{name}: the withheld pod got traffic");
    };
    step("rolling restart of the controllers", &|| {
        shell("kubectl -n kubervisor rollout restart deployment/kubervisor");
    });
    step("helm upgrade", &|| {
        release::deploy("upgrade", &["debug=true"]);
    });
    step("helm rollback", &|| release::on_release("rollback"));
    let began = Instant::now();
    shell("kubectl drain node-2 --ignore-daemonsets --delete-emptydir-data --timeout=90s");
    shell(
        "kubectl -n kubervisor rollout status deployment/kubervisor --timeout=60s &&
         kubectl -n shop rollout status deployment/shop --timeout=60s && kubectl uncordon node-2",
    );
    table.answered(load, "kubectl drain of one of two nodes, at the pace of the budgets", began.elapsed());
}

/// One pod is withheld, so that the uninstall has something to give back.
async fn uninstall(application: &Application, load: &Load, detector: &Detector, table: &mut Table) {
    let bad = application.pods().await.into_keys().next().unwrap();
    detector.name(&[&bad]);
    application.has_traffic(&bad, "no").await;
    let began = Instant::now();
    release::on_release("uninstall");
    let took = began.elapsed();
    let traffic = application.traffic(&bad).await;
    assert!(traffic.is_none() || traffic.as_deref() == Some("yes"), "{traffic:?}");
    load.returns(&bad, Instant::now()).await;
    table.answered(load, "helm uninstall: the withheld pod has its traffic", took);
}

/// How many answers each pod gave, and how many of them were errors of its own.
fn errors_by_pod(answers: &Answers) -> BTreeMap<&str, (usize, usize)> {
    let mut pods = BTreeMap::<&str, (usize, usize)>::new();
    for (status, pod) in answers.0.iter().filter_map(|answer| answer.outcome.as_ref().ok()) {
        let (answered, errors) = pods.entry(pod).or_default();
        *answered += 1;
        *errors += usize::from(*status != 200);
    }
    pods
}
