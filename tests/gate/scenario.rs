//! Runs the text files in this folder. A line is a command; below a `plan`, `pass` or `explain` stand the expected output
//! lines, marked with `|`. `UPDATE=1` writes the actual ones: review the diff. Commands: `tests/gate/README.md`.

use std::{fmt::Write as _, path::Path, time::Duration};

use kubervisor::decide::{
    fleet::{Presence, Traffic},
    gate::action::Verb,
    policy::{ActivatorMode, OnNoData, Policy},
    time::Timestamp,
    verdict::{Call, Judgement, NoVerdict, Opinion, Source, SourceKind, parse_traffic, resolve},
};

use super::world::{Sink, World, breaker, ratio};

struct Run {
    world: World,
    start: Timestamp,
    policy: Policy,
}

fn run(text: &str) -> String {
    let mut run: Option<Run> = None;
    let mut answer = String::new();
    for line in text.lines().filter(|line| !line.starts_with('|')) {
        writeln!(answer, "{line}").unwrap();
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
        let Some((&command, rest)) = words.split_first() else { continue };
        if matches!(command, "labels" | "file") {
            run = Some(begin(command, rest));
            continue;
        }
        let run = run.as_mut().unwrap_or_else(|| panic!("begin with `labels N` or `file N`"));
        for line in run.command(command, rest).lines() {
            writeln!(answer, "| {line}").unwrap();
        }
    }
    answer
}

fn begin(sink: &str, words: &[&str]) -> Run {
    let sink = if sink == "file" { Sink::File } else { Sink::Labels };
    let mut policy = ratio(0);
    words[1..].iter().for_each(|word| set(&mut policy, word));
    let world = World::new(sink, policy.clone(), words[0].parse().unwrap());
    Run { start: world.now, world, policy }
}

fn set(policy: &mut Policy, word: &str) {
    let (name, value) = word.split_once('=').unwrap_or((word, "true"));
    let number = || value.parse::<u32>().unwrap();
    let seconds = || Duration::from_secs_f64(value.parse().unwrap());
    if name == "breaker" {
        return policy.breakers.push(breaker(value));
    }
    match name {
        "panic" => policy.panic_threshold = value.parse().ok(),
        "paused" => policy.paused = value == "true",
        "dryrun" => policy.dry_run = value == "true",
        "revert" => policy.revert_if_no_better = Some(seconds()),
        _ => {
            let breaker = policy.breakers.last_mut().unwrap();
            let activator = &mut breaker.activator;
            match name {
                "ratio" => breaker.floor.min_available_ratio = Some(value.parse().unwrap()),
                "count" => breaker.floor.min_available_count = number(),
                "coverage" => breaker.min_coverage = value.parse().unwrap(),
                "rehearse" => breaker.dry_run = true,
                "nodata" => {
                    breaker.on_no_data = if value == "restore" { OnNoData::Restore } else { OnNoData::Hold }
                }
                "period" => activator.period = seconds(),
                "maxperiod" => activator.max_period = seconds(),
                "retries" => activator.max_retry = number(),
                "pauses" => activator.max_pause = number(),
                "batch" => activator.batch = Some(number()),
                "kills" => activator.max_kills_per_hour = Some(number()),
                "mode" => {
                    activator.mode = match value {
                        "retryAndKill" => ActivatorMode::RetryAndKill,
                        "retryAndPause" => ActivatorMode::RetryAndPause,
                        _ => ActivatorMode::Periodic,
                    }
                }
                other => panic!("no setting {other}"),
            }
        }
    }
}

impl Run {
    fn command(&mut self, command: &str, words: &[&str]) -> String {
        match command {
            "plan" => {
                self.world.settle();
                return self.report();
            }
            "pass" => {
                self.world.pass(Duration::from_secs_f64(words[0].parse().unwrap()));
                return self.report();
            }
            "explain" => return self.explain(words[0]),
            "policy" => {
                words.iter().for_each(|word| set(&mut self.policy, word));
                self.world.policy = self.policy.clone();
            }
            "desired" => self.world.desired = words[0].parse().unwrap(),
            "can-kill" => self.world.can_kill = true,
            "ungated" => self.world.gated = false,
            "gated" => self.world.gated = true,
            "bad" | "nodata" => self.judge(command, words),
            "callback" => self.callback(words),
            "ask" => self.ask(words),
            "restart" => self.world.verdicts = kubervisor::decide::verdict::Verdicts::default(),
            _ => words.iter().for_each(|name| self.change(command, name)),
        }
        String::new()
    }

    /// `bad BREAKER [POD[:SEVERITY]...]`, `nodata BREAKER POD...`: a run of the breaker with these verdicts; all others
    /// are good.
    fn judge(&mut self, command: &str, words: &[&str]) {
        let pods: Vec<(&str, f64)> = words[1..]
            .iter()
            .map(|word| word.split_once(':').map_or((*word, 0.5), |(name, by)| (name, by.parse().unwrap())))
            .collect();
        if command == "bad" {
            return if pods.first().is_some_and(|(name, _)| *name == "all") {
                self.world.all_bad(words[0]);
            } else {
                self.world.bad(words[0], &pods);
            };
        }
        let all = pods.first().is_some_and(|(name, _)| *name == "all");
        let opinions = self.world.pods.values().map(|pod| {
            let unknown = all || pods.iter().any(|(name, _)| *name == pod.name);
            let judgement = if unknown { Judgement::None(NoVerdict::NoSeries) } else { Judgement::Good };
            (pod.uid.clone(), Opinion::Judged(judgement))
        });
        let source = Source::new(words[0], SourceKind::Breaker, self.world.now, opinions.collect());
        self.world.verdicts.replace(source);
    }

    /// `callback JSON`: a run that prints this as its `traffic`.
    fn callback(&mut self, words: &[&str]) {
        let traffic = serde_json::from_str(&words.join(" ")).unwrap();
        let (verdicts, warnings) = parse_traffic(&traffic);
        assert!(warnings.is_empty(), "{warnings:?}");
        let (opinions, unknown) = resolve(verdicts, |who| match who {
            kubervisor::decide::verdict::VerdictTarget::Id(id)
            | kubervisor::decide::verdict::VerdictTarget::Key(id) => Some(self.world.uid(id)),
        });
        assert_eq!(unknown, 0);
        self.world.verdicts.replace(Source::new("callback", SourceKind::Callback, self.world.now, opinions));
    }

    /// `ask withhold|admit POD SECONDS`: a person asks for it, from now on.
    fn ask(&mut self, words: &[&str]) {
        let call = if words[0] == "admit" { Call::Admit } else { Call::Withhold };
        let until = self.world.now + Duration::from_secs(words[2].parse().unwrap());
        let asked = Opinion::Requested { call, reason: "asked for by ann".to_owned(), until };
        let new = (self.world.uid(words[1]), asked);
        let verdicts = &mut self.world.verdicts;
        let old = verdicts.sources.iter().find(|source| source.kind == SourceKind::Person);
        let mut all = old.map(|source| source.opinions().to_vec()).unwrap_or_default();
        all.retain(|(uid, _)| *uid != new.0);
        all.push(new);
        verdicts.sources.retain(|source| source.kind != SourceKind::Person);
        verdicts.sources.push(Source::new("person", SourceKind::Person, self.world.now, all));
    }

    fn change(&mut self, command: &str, name: &str) {
        if command == "gone" {
            let uid = self.world.uid(name);
            self.world.pods.remove(&uid);
            return;
        }
        let pod = self.world.pod(name);
        match command {
            "unready" => pod.ready = false,
            "ready" => pod.ready = true,
            "silent" => pod.presence = Presence::Unknown,
            "heard" => pod.presence = Presence::Present,
            "terminating" => pod.terminating = true,
            "uncontrolled" => pod.has_controller = false,
            "human-yes" => pod.traffic = Traffic::Yes,
            "human-no" => pod.traffic = Traffic::No,
            "human-pause" => pod.traffic = Traffic::Pause,
            "unlabelled" => pod.traffic = Traffic::Unlabelled,
            "unclaimed" => (pod.claimed, pod.fence) = (false, None),
            other => panic!("no command {other}"),
        }
    }

    /// The actions since the last report, and the state now.
    fn report(&mut self) -> String {
        let mut text = String::new();
        let mut log = std::mem::take(&mut self.world.log).into_iter().peekable();
        while let Some((at, verb, name)) = log.next() {
            let mut names = vec![name];
            while let Some((.., name)) = log.next_if(|next| (next.0, next.1) == (at, verb)) {
                names.push(name);
            }
            if !matches!(verb, Verb::Release) {
                let t = at.since(self.start).as_secs_f64();
                writeln!(text, "t={t} {} {}", format!("{verb:?}").to_lowercase(), names.join(" ")).unwrap();
            }
        }
        let plan = self.world.plan();
        let out = self.world.withheld();
        let out = if out.is_empty() { "none".to_owned() } else { out.join(" ") };
        write!(text, "{} serve, floor {}; out of traffic: {out}", plan.budget.serving, plan.budget.floor)
            .unwrap();
        for alarm in &plan.alarms {
            write!(text, "\nalarm {}: {}", alarm.reason, alarm.message).unwrap();
        }
        text
    }

    fn explain(&self, name: &str) -> String {
        let plan = self.world.plan();
        let Some(why) = plan.explain(self.world.uid(name).as_str()) else {
            return format!("{name}: serving, no objection");
        };
        let mut why = why.clone();
        if let Some(at) = why.next.as_mut().and_then(|next| next.at.as_mut()) {
            let millis = at.since(self.start).as_millis();
            *at = Timestamp::from_unix_millis(i64::try_from(millis).unwrap());
        }
        why.to_string().replace("1970-01-01T", "+")
    }
}

#[test]
fn every_scenario_has_the_expected_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gate");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 10, "only {} scenarios found", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = run(&expected);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &actual).unwrap();
        } else if let Some((line, (expected, actual))) = expected
            .lines()
            .chain(["<end>"])
            .zip(actual.lines().chain(["<end>"]))
            .enumerate()
            .find(|(_, (a, b))| a != b)
        {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("{file}:{}: expected {expected:?}, got {actual:?}", line + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
