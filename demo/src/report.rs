//! The report: one self-contained page with timeline, verdicts and events.
//!
//! The page is a template that escapes its values; this module turns the record into numbers and paths.

mod chart;

use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, context, value::Serde};

use self::chart::Chart;
use super::{
    stage::POLICY,
    story::{Record, Story},
};

const PAGE: &str = include_str!("report/page.html");

/// Writes the page to `file`.
pub(super) fn write(file: &Path, story: &Story) -> anyhow::Result<()> {
    let began = Timestamp::from_millisecond(story.origin().unix_millis()).unwrap_or_default();
    let page = render(&story.record(), &began.strftime("%Y-%m-%d %H:%M UTC").to_string())?;
    std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))
}

fn render(record: &Record, began: &str) -> anyhow::Result<String> {
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    pages.add_template("page.html", PAGE).context("the report's template is wrong")?;
    let page = pages.get_template("page.html").context("the report has no template")?;
    let requests: usize = record.samples.iter().map(|sample| sample.requests).sum();
    let length = record.samples.last().map_or(0.0, |sample| sample.at);
    let held =
        record.acts.iter().filter(|act| act.verdict.as_ref().is_some_and(|verdict| verdict.held)).count();
    let rendered = page.render(context! {
        began => began,
        version => env!("CARGO_PKG_VERSION"),
        acts => Serde(&record.acts),
        events => Serde(record.events()),
        samples => Serde(&record.samples),
        chart => Serde(Chart::of(record)),
        policy => POLICY,
        requests => requests,
        held => held,
        length => format!("{length:.0}"),
    });
    rendered.context("the report cannot be rendered")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::{AppState, Kind, Sample, Verdict};

    #[tokio::test(start_paused = true)]
    async fn whatever_the_story_says_is_text_and_not_markup() {
        let story = Story::begin();
        story.begin_act("healthy", "all serve");
        story.note(Kind::Alarm, "<script>alert(1)</script>");
        let sample = Sample {
            at: 0.25,
            requests: 30,
            failures: 4.0,
            listed: 12,
            floor: 6,
            panic: false,
            master: true,
            apps: vec![AppState::Serving; 12],
        };
        story.sample(sample.clone());
        story.sample(Sample { at: 0.5, ..sample });
        story.end_act(Verdict { held: false, figures: "3 < 4 & \"so\"".to_owned() });
        let page = render(&story.record(), "today").unwrap();
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("3 &lt; 4 &amp; &quot;so&quot;"));
        assert!(page.contains("FAIL"));
        assert!(!page.contains("NaN"));
        assert!(!page.contains("http://") && !page.contains("https://"), "the page loads nothing");
    }
}
