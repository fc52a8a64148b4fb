//! `-o`: one answer in every format.

use std::{fmt, str::FromStr};

use anyhow::Context;
use serde_json::Value;

use super::{jsonpath::Template, style::Style};
use crate::{exit::Exit, roles::output};

/// The format of what is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// With more columns.
    Wide,
    Json,
    Yaml,
    /// Only the names, for another kubectl.
    Name,
    JsonPath(Template),
    /// Of check only.
    Junit,
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = "write table, wide, json, yaml, name or jsonpath=TEMPLATE";
        Ok(match text {
            "table" => Self::Table,
            "wide" => Self::Wide,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            "junit" => Self::Junit,
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => Self::JsonPath(Template::parse(template)?),
                None => return Err(known.to_owned()),
            },
        })
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Wide => "wide",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Name => "name",
            Self::JsonPath(_) => "jsonpath",
            Self::Junit => "junit",
        })
    }
}

/// An answer that every format can show.
pub(super) trait CommandOutput {
    /// For json, yaml and jsonpath.
    fn value(&self) -> Value;

    /// Each as `kind/name`.
    fn names(&self) -> Vec<String>;

    /// As a JUnit report, if it is one of checks.
    fn junit(&self) -> Option<String> {
        None
    }

    /// Its text is rows that stand for themselves, below a header.
    fn has_rows(&self) -> bool {
        false
    }

    /// For people, without colours where `style` has none.
    fn text(&self, style: Style, wide: bool) -> String;
}

impl OutputFormat {
    /// For people, not for programs.
    pub(super) const fn is_text(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// The answer in this format.
    ///
    /// # Errors
    /// 1 when it cannot be serialized.
    pub(super) fn render(&self, answer: &dyn CommandOutput, style: Style) -> Result<String, Exit> {
        Ok(match self {
            Self::Table => answer.text(style, false),
            Self::Wide => answer.text(style, true),
            Self::Json => output::json(&answer.value())?,
            Self::Yaml => yaml(&answer.value())?,
            Self::Name => answer.names().into_iter().map(|name| name + "\n").collect(),
            Self::JsonPath(template) => template.render(&answer.value()),
            Self::Junit => answer.junit().unwrap_or_default(),
        })
    }
}

fn yaml(value: &Value) -> Result<String, Exit> {
    Ok(serde_saphyr::to_string(value).context("cannot write it as YAML")?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_switch_stays_a_string_in_yaml() {
        let yaml = yaml(&json!({ "traffic": "yes", "pod": "1" })).unwrap();
        assert!(yaml.contains("traffic: \"yes\"") || yaml.contains("traffic: 'yes'"), "{yaml}");
    }

    #[test]
    fn an_unknown_format_is_refused_with_the_known_ones() {
        for text in ["xml", "", "jsonpath", "jsonpath={.a"] {
            let refused = text.parse::<OutputFormat>().unwrap_err();
            assert!(refused.contains("write table") || refused.contains("closing brace"), "{refused}");
        }
    }
}
