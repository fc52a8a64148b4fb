//! A tree for a terminal: one line for each node, in three columns.

use unicode_width::UnicodeWidthStr;

use super::{BreakerNode, PodNode, ServiceTree};
use crate::{
    decide::time::Timestamp,
    roles::plugin::{
        fields,
        style::{Style, Tone},
        table,
    },
};

/// The most pods without an objection that are shown in the narrow form.
const PLAIN_PODS: usize = 20;

/// One line: where it hangs, its name, its state and more about it.
struct Line {
    name: String,
    state: String,
    tone: Tone,
    more: String,
}

/// The marks that a tree is drawn with.
struct Branches {
    fork: &'static str,
    last: &'static str,
    trunk: &'static str,
}

const BLANK: &str = "   ";
const DRAWN: Branches = Branches { fork: "├─ ", last: "└─ ", trunk: "│  " };
const PLAIN: Branches = Branches { fork: "|- ", last: "`- ", trunk: "|  " };

pub(super) fn text(tree: &ServiceTree, style: Style, wide: bool) -> String {
    let branches = if style.ascii { PLAIN } else { DRAWN };
    let lines = lines(tree, &branches, wide);
    let width = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).width()).max().unwrap_or(0);
    let (names, states) = (width(|line| &line.name), width(|line| &line.state));
    let rows = lines.iter().map(|line| {
        let gap = |text: &str, to: usize| " ".repeat(to.saturating_sub(text.width()) + 2);
        let (name, state) = (&line.name, &line.state);
        let row = format!("{name}{}{state}{}{}", gap(name, names), gap(state, states), line.more);
        let row = style.fit(row.trim_end());
        match row.split_at_checked(name.len() + gap(name, names).len()) {
            Some((before, rest)) if rest.starts_with(state.as_str()) => {
                let painted = style.paint(line.tone, state);
                format!("{before}{painted}{}\n", rest.get(state.len()..).unwrap_or_default())
            }
            _ => row + "\n",
        }
    });
    let notes = tree.notes.iter().map(|note| style.wrap(&format!("note: {note}"), 6) + "\n");
    rows.chain(notes).collect()
}

fn lines(tree: &ServiceTree, branches: &Branches, wide: bool) -> Vec<Line> {
    let gated = match tree.service.gated {
        Some(true) => ("gated", Tone::Good, ""),
        Some(false) => ("not gated", Tone::Warning, "labels do not decide about traffic yet"),
        None => ("unknown", Tone::Warning, ""),
    };
    let root = format!("service/{}", tree.service.name);
    let service = Line { name: root, state: gated.0.to_owned(), tone: gated.1, more: gated.2.to_owned() };
    let name = format!("{}kubervisorservice/{}", branches.last, tree.name);
    let tone = table::tone(&tree.status);
    let resource = Line { name, state: tree.status.clone(), tone, more: arithmetic(tree) };
    let mut lines = vec![service, resource];
    for (index, breaker) in tree.breakers.iter().enumerate() {
        let last = index + 1 == tree.breakers.len() && tree.pods.is_empty();
        lines.push(breaker_line(breaker, if last { branches.last } else { branches.fork }));
        let trunk = if last { BLANK } else { branches.trunk };
        lines.extend(pod_lines(&breaker.pods, trunk, branches, tree.now, wide));
    }
    if !tree.pods.is_empty() {
        let name = format!("{BLANK}{}other pods", branches.last);
        let more = format!("{}, no breaker objects to them or withholds them", tree.pods.len());
        lines.push(Line { name, state: String::new(), tone: Tone::Faint, more });
        let shown = if wide { tree.pods.len() } else { tree.pods.len().min(PLAIN_PODS) };
        let pods = tree.pods.get(..shown).unwrap_or_default();
        lines.extend(pod_lines(pods, BLANK, branches, tree.now, wide));
        if shown < tree.pods.len() {
            let name = format!("{BLANK}{BLANK}{}{} more", branches.last, tree.pods.len() - shown);
            let more = "-o wide shows all".to_owned();
            lines.push(Line { name, state: String::new(), tone: Tone::Faint, more });
        }
    }
    lines
}

/// The floor in numbers.
fn arithmetic(tree: &ServiceTree) -> String {
    let (Some(serving), Some(floor)) = (tree.serving, tree.floor) else { return String::new() };
    let of = tree.managed.map(|managed| format!(" of {managed}")).unwrap_or_default();
    format!("{serving}{of} serve, floor {floor}: {} more may be withheld", serving.saturating_sub(floor))
}

fn breaker_line(breaker: &BreakerNode, branch: &str) -> Line {
    let BreakerNode { name, detector, evaluation_period, activator, dry_run, pods } = breaker;
    let bad = pods.len();
    let (state, tone) = match (bad, dry_run) {
        (_, true) => ("dry run".to_owned(), Tone::Warning),
        (0, false) => ("no objection".to_owned(), Tone::Good),
        (bad, false) => (format!("{bad} bad"), Tone::Bad),
    };
    let more = format!("{detector} every {evaluation_period} s, {activator}");
    Line { name: format!("{BLANK}{branch}breaker/{name}"), state, tone, more }
}

fn pod_lines<'a>(
    pods: &'a [PodNode],
    trunk: &'a str,
    branches: &'a Branches,
    now: Timestamp,
    wide: bool,
) -> impl Iterator<Item = Line> + 'a {
    pods.iter().enumerate().map(move |(index, pod)| {
        let branch = if index + 1 == pods.len() { branches.last } else { branches.fork };
        let next = pod.next.as_ref().map(|next| match next.time() {
            Some(at) if at > now => format!("{} in {}", next.what, fields::age(now, at)),
            Some(_) => format!("{} now", next.what),
            None => next.what.clone(),
        });
        let since = pod.since.as_deref().and_then(fields::instant).filter(|_| wide);
        let since = since.map(|at| format!("for {}", fields::age(at, now)));
        let retries = pod.retry_count.as_ref().filter(|_| wide).map(|count| format!("withdrawals {count}"));
        let why = pod.why.clone().or_else(|| pod.decision.clone());
        let more = [why, next, since, retries].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let tone = match pod.standing.as_str() {
            "serving" if pod.breaker.is_none() => Tone::Good,
            "withheld" | "paused" | "ending" | "foreign" => Tone::Bad,
            _ => Tone::Warning,
        };
        let name = format!("{BLANK}{trunk}{branch}pod/{}", pod.name);
        Line { name, state: pod.standing.clone(), tone, more }
    })
}
