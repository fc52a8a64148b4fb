//! The pages as templates. Every value is escaped, cut, and made visible where it would turn or hide text.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Output, State, Value, escape_formatter, syntax::SyntaxConfig};

use crate::{decide::keepalive::is_printable, roles::output::visible};

/// Characters of a value that are shown: names in Kubernetes have at most 253, a name in a keepalive can be longer.
const SHOWN: usize = 600;

const TEMPLATES: [(&str, &str); 10] = [
    ("base.html", include_str!("pages/base.html")),
    ("chart.html", include_str!("pages/chart.html")),
    ("overview.html", include_str!("pages/overview.html")),
    ("fleet.html", include_str!("pages/fleet.html")),
    ("pod.html", include_str!("pages/pod.html")),
    ("ensemble.html", include_str!("pages/ensemble.html")),
    ("members.html", include_str!("pages/members.html")),
    ("values.html", include_str!("pages/values.html")),
    ("report.html", include_str!("pages/report.html")),
    ("message.html", include_str!("pages/message.html")),
];

static PAGES: LazyLock<Result<Environment<'static>, minijinja::Error>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    pages.set_formatter(format);
    pages.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, text) in TEMPLATES {
        pages.add_template(name, text)?;
    }
    Ok(pages)
});

/// Writes one page.
///
/// # Errors
/// A mistake in a template: a test renders each of them.
pub(in crate::roles) fn render(name: &str, values: Value) -> Result<String, String> {
    let pages = PAGES.as_ref().map_err(|error| format!("the view's templates are wrong: {error}"))?;
    let page = pages.get_template(name).and_then(|page| page.render(values));
    page.map_err(|error| format!("the page {name} cannot be written: {error:#}"))
}

fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    // Safe text is made by this program: a stylesheet, or a path that is wrong without its end.
    let cut = |text: &&str| !value.is_safe() && (text.len() > SHOWN || !is_printable(text));
    match value.as_str().filter(cut) {
        Some(text) => escape_formatter(out, state, &Value::from(visible(text, SHOWN))),
        None => escape_formatter(out, state, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_drawn_whole_and_a_long_name_is_cut() {
        let mut pages = Environment::new();
        pages.set_auto_escape_callback(|_| AutoEscape::Html);
        pages.set_formatter(format);
        let long = "H1V2".repeat(500);
        let render =
            |template: &str| pages.render_str(template, minijinja::context! { long => &*long }).unwrap();
        assert_eq!(render("{{ long|safe }}"), long);
        assert!(render("{{ long }}").chars().count() <= SHOWN + 1);
        assert!(include_str!("pages/chart.html").contains("d=\"{{ chart.serving|safe }}\""));
    }

    #[test]
    fn every_template_is_well_formed() {
        assert!(PAGES.as_ref().is_ok_and(|pages| pages.templates().count() == TEMPLATES.len()));
    }
}
