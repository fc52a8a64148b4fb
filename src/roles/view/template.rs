//! The pages as templates. Every value is escaped, cut, and made visible where it would turn or hide text.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Output, State, Value, escape_formatter, syntax::SyntaxConfig};

use crate::{decide::keepalive::is_printable, roles::output::visible};

/// Characters of a value that are shown: names in Kubernetes have at most 253, a name in a keepalive can be longer.
const SHOWN: usize = 600;

const TEMPLATES: [(&str, &str); 8] = [
    ("base.html", include_str!("pages/base.html")),
    ("chart.html", include_str!("pages/chart.html")),
    ("overview.html", include_str!("pages/overview.html")),
    ("fleet.html", include_str!("pages/fleet.html")),
    ("pod.html", include_str!("pages/pod.html")),
    ("ensemble.html", include_str!("pages/ensemble.html")),
    ("members.html", include_str!("pages/members.html")),
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
pub(super) fn render(name: &str, values: Value) -> Result<String, String> {
    let pages = PAGES.as_ref().map_err(|error| format!("the view's templates are wrong: {error}"))?;
    let page = pages.get_template(name).and_then(|page| page.render(values));
    page.map_err(|error| format!("the page {name} cannot be written: {error:#}"))
}

fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str().filter(|text| text.len() > SHOWN || !is_printable(text)) {
        Some(text) => escape_formatter(out, state, &Value::from(visible(text, SHOWN))),
        None => escape_formatter(out, state, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_well_formed() {
        assert!(PAGES.as_ref().is_ok_and(|pages| pages.templates().count() == TEMPLATES.len()));
    }
}
