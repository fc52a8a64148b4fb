//! The two text formats of `/metrics`, and which of them an `Accept` header asks for.

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.0: also the answer where no `Accept` is sent.
    OpenMetrics,
    /// Prometheus text 0.0.4: the answer to everything that does not name OpenMetrics.
    Text,
}

impl Exposition {
    /// The format that `accept`, the header's value, prefers.
    pub fn accepted(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::OpenMetrics };
        let weight = |media: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim).collect::<Vec<_>>());
            let weights =
                ranges.filter(|range| range.first().is_some_and(|it| it.eq_ignore_ascii_case(media)));
            let weights = weights.map(|range| {
                let given = range.iter().find_map(|part| part.strip_prefix("q="));
                given.map_or(1.0, |given| given.parse::<f64>().unwrap_or(0.0))
            });
            weights.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// An OpenMetrics text in this format.
    pub fn of(self, open: String) -> String {
        match self {
            Self::OpenMetrics => open,
            Self::Text => plain(&open),
        }
    }
}

/// The same samples in text 0.0.4, where a family has the name of its samples: that of a counter ends in `_total`, and an
/// info is a gauge.
fn plain(open: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(open.len()), None);
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            for (keyword, what) in [("HELP", help.take()), ("TYPE", Some(kind))] {
                if let Some(what) = what {
                    text.push_str(&format!("# {keyword} {name}{suffix} {what}\n"));
                }
            }
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_the_scraper_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, wanted) in [
            (None, Exposition::OpenMetrics),
            (Some(prometheus), Exposition::OpenMetrics),
            (Some("application/openmetrics-text"), Exposition::OpenMetrics),
            (Some("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5"), Exposition::Text),
            (Some("application/openmetrics-text;q=0"), Exposition::Text),
            (Some("application/openmetrics-text;q=nonsense"), Exposition::Text),
            (Some("text/plain"), Exposition::Text),
            (Some("*/*"), Exposition::Text),
            (Some("application/json"), Exposition::Text),
            (Some(""), Exposition::Text),
        ] {
            assert_eq!(Exposition::accepted(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn in_text_a_family_has_the_name_of_its_samples() {
        let open = "# HELP a_events Events.\n# TYPE a_events counter\na_events_total{outcome=\"x\"} 3\n\
                    # HELP a_build The program.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                    # HELP a_size_bytes Size.\n# TYPE a_size_bytes gauge\n# UNIT a_size_bytes bytes\na_size_bytes 4\n\
                    # HELP a_wait Time.\n# TYPE a_wait histogram\na_wait_sum 1.5\na_wait_count 2\n\
                    a_wait_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let text = "# HELP a_events_total Events.\n# TYPE a_events_total counter\na_events_total{outcome=\"x\"} 3\n\
                    # HELP a_build_info The program.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                    # HELP a_size_bytes Size.\n# TYPE a_size_bytes gauge\na_size_bytes 4\n\
                    # HELP a_wait Time.\n# TYPE a_wait histogram\na_wait_sum 1.5\na_wait_count 2\n\
                    a_wait_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(Exposition::Text.of(open.to_owned()), text);
        assert_eq!(Exposition::OpenMetrics.of(open.to_owned()), open);
    }
}
