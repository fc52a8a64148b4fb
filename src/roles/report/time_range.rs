//! The range of time of a report, from `--from` and `--to`.

use std::time::Duration;

use crate::{decide::time::Timestamp, exit::Exit};

/// The longest range: a year.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// From one moment to another; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The first evaluation.
    pub from: Timestamp,
    /// The end; nothing is evaluated at it.
    pub to: Timestamp,
}

impl TimeRange {
    /// Reads both ends: a time (RFC 3339, or seconds since 1970), `now`, or for `from` a span of time before `to`.
    ///
    /// # Errors
    /// 2 for what is no time, an empty or reversed range, and one in the future.
    pub fn read(from: &str, to: &str, now: Timestamp) -> Result<Self, Exit> {
        let to = moment(to, now).ok_or_else(|| {
            wrong("--to", to, "now, a time such as 2026-07-01T12:00:00Z, or a span before now such as 1h")
        })?;
        let begin = span(from).map(|span| to - span).or_else(|| moment(from, now));
        let from = begin.ok_or_else(|| {
            wrong(
                "--from",
                from,
                "a span before --to such as 7d, 12h or 90m, or a time such as 2026-07-01T12:00:00Z",
            )
        })?;
        let usage = |text: String| Err(Exit::Usage(text));
        if from >= to {
            return usage(format!(
                "--from is {from}, and --to is {to}, which is not later; write the earlier one as --from"
            ));
        }
        if from >= now {
            return usage(format!(
                "the range begins in the future, at {from} (it is {now} now); write an earlier --from"
            ));
        }
        let to = to.min(now);
        if to.since(from) > LONGEST {
            return usage("the range is longer than 366 days; write a later --from".to_owned());
        }
        // Whole seconds, so that every step has a time that a person can read.
        let floor = |at: Timestamp| Timestamp::from_unix_millis(at.unix_millis().div_euclid(1000) * 1000);
        let range = Self { from: floor(from), to: floor(to) };
        if range.from >= range.to {
            return usage("the range is shorter than a second; write an earlier --from".to_owned());
        }
        Ok(range)
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.to.since(self.from)
    }
}

fn wrong(flag: &str, text: &str, write: &str) -> Exit {
    Exit::Usage(format!("{flag} is {text:?}, which is no time; write {write}"))
}

/// A moment: `now`, a span before it, RFC 3339, or seconds since 1970.
pub(super) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(span) = span(text) {
        return Some(now - span);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_unix_millis(at.as_millisecond()));
    }
    let seconds: f64 = text.parse().ok().filter(|seconds: &f64| (0.0..1e11).contains(seconds))?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Timestamp::from_unix_millis(0) + since)
}

/// A span of time: `7d`, `1h30m`, `90s`, `2w`; a day has 24 hours.
pub(in crate::roles) fn span(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.trim().parse().ok()?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_500);

    fn read(from: &str, to: &str) -> Result<(i64, i64), String> {
        let range = TimeRange::read(from, to, NOW).map_err(|exit| exit.to_string())?;
        Ok((range.from.unix_millis() / 1000, range.to.unix_millis() / 1000))
    }

    #[test]
    fn a_range_is_read_in_every_form_and_ends_at_whole_seconds() {
        assert_eq!(read("7d", "now"), Ok((1_700_000_000 - 7 * 86_400, 1_700_000_000)));
        assert_eq!(read("1h30m", "1w"), Ok((1_700_000_000 - 7 * 86_400 - 5400, 1_700_000_000 - 7 * 86_400)));
        let same = read("2023-11-14T00:00:00Z", "2023-11-14T01:00:00+01:00");
        assert!(same.unwrap_err().contains("not later"));
        assert_eq!(
            read("2023-11-14T00:00:00Z", "2023-11-14T02:00:00+01:00"),
            Ok((1_699_920_000, 1_699_923_600))
        );
        assert_eq!(read("1699999000", "1699999100.5"), Ok((1_699_999_000, 1_699_999_100)));
        assert!(read("1h", "2030-01-01T00:00:00Z").unwrap_err().contains("future"));
        assert_eq!(
            read("1699999000", "2030-01-01T00:00:00Z"),
            Ok((1_699_999_000, 1_700_000_000)),
            "up to now"
        );
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_write() {
        for (from, to, words) in [
            ("soon", "now", "--from is \"soon\""),
            ("7d", "later", "--to is \"later\""),
            ("", "now", "--from is \"\""),
            ("0s", "now", "--from"),
            ("7x", "now", "write a span"),
            ("now", "now", "not later"),
            ("now", "7d", "not later"),
            ("2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z", "in the future"),
            ("400d", "now", "366 days"),
            ("99999999999999999999d", "now", "--from"),
            ("1e300", "now", "--from"),
        ] {
            let error = read(from, to).unwrap_err();
            assert!(error.contains(words), "{from} {to}: {error}");
        }
    }
}
