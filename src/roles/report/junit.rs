//! The report as test results, for systems that show these: one suite for each policy, one test for each thing that
//! `--fail-on` knows. A test fails only if `--fail-on` names it.

use super::{
    fail_on::FailOn,
    model::{PolicyReport, ReportModel},
};
use crate::roles::output::{visible, xml};

/// The results as XML.
pub(super) fn render(models: &[ReportModel], fail_on: &[FailOn]) -> String {
    let mut xml =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"kubervisor report\">\n".to_owned();
    for model in models {
        for policy in &model.policies {
            xml.push_str(&suite(model, policy, fail_on));
        }
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(model: &ReportModel, policy: &PolicyReport, fail_on: &[FailOn]) -> String {
    let summary = &policy.summary;
    let cases = [
        Some((
            FailOn::Withheld,
            format!("{} episodes, {:.1} pod-minutes", summary.episodes, summary.pod_minutes_withheld),
        )),
        summary
            .panics
            .zip(summary.panic_minutes)
            .map(|(panics, minutes)| (FailOn::Panic, format!("{panics} times, {minutes:.1} minutes"))),
        summary
            .floor_reached_minutes
            .map(|minutes| (FailOn::Floor, format!("reached for {minutes:.1} minutes"))),
        summary.no_data_minutes.map(|minutes| (FailOn::NoData, format!("{minutes:.1} minutes"))),
    ];
    let cases: Vec<(FailOn, String)> = cases.into_iter().flatten().collect();
    let fails = |what: &FailOn| what.occurred(policy) && fail_on.contains(what);
    let failures = cases.iter().filter(|(what, _)| fails(what)).count();
    let partial = usize::from(model.partial.is_some());
    let mut xml = format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{partial}\">\n",
        escaped(&policy.title()),
        cases.len() + partial
    );
    for (what, text) in cases {
        let tag = if fails(&what) {
            format!("<failure message=\"{text}\"/>")
        } else {
            format!("<system-out>{text}</system-out>")
        };
        xml.push_str(&case(what.word(), &tag));
    }
    if let Some(why) = &model.partial {
        xml.push_str(&case("complete", &format!("<error message=\"{}\"/>", escaped(why))));
    }
    xml.push_str("  </testsuite>\n");
    xml
}

fn case(name: &str, result: &str) -> String {
    format!("    <testcase classname=\"kubervisor.report\" name=\"{name}\">{result}</testcase>\n")
}

/// Text for an attribute; what XML cannot hold is written out.
fn escaped(text: &str) -> String {
    xml(&visible(text, 600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_attribute() {
        assert_eq!(escaped("<a b=\"&\">\u{0}\u{ffff}"), "&lt;a b=&quot;&amp;&quot;&gt;\\u{0}?");
    }
}
