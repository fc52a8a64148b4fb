//! One field at a time out of the raw manifest: its range, its default, its message.

use std::time::Duration;

use super::{super::report::Report, forms};

/// Takes the fields below one path.
pub(super) struct Take<'r, 'd> {
    pub(super) report: &'r mut Report<'d>,
    pub(super) path: &'r str,
}

impl Take<'_, '_> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    pub(super) fn misfit(&mut self, field: &str, what: impl Into<String>) {
        let path = self.at(field);
        self.report.misfit(&path, what);
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, field: &str, text: Option<&str>) -> String {
        match text {
            Some(text) => self.text(field, text),
            None => {
                let path = self.at(field);
                self.report.missing(&path);
                String::new()
            }
        }
    }

    /// A text that is not too long.
    pub(super) fn text(&mut self, field: &str, text: &str) -> String {
        if text.chars().count() > forms::LONGEST_TEXT {
            self.misfit(field, format!("is longer than {} characters", forms::LONGEST_TEXT));
        }
        text.to_owned()
    }

    /// A DNS-1035 label that must be there.
    pub(super) fn label(&mut self, field: &str, text: Option<&str>) -> String {
        let label = self.required(field, text);
        if text.is_some() && !forms::is_label(&label) {
            let shown: String = label.chars().take(70).collect();
            self.misfit(field, format!("is {shown:?}, which is no DNS label"));
        }
        label
    }

    pub(super) fn percent(&mut self, field: &str, number: Option<u32>, least: u8) -> Option<u8> {
        let number = number?;
        match u8::try_from(number) {
            Ok(percent) if (least..=100).contains(&percent) => Some(percent),
            _ => {
                self.misfit(field, format!("is {number}"));
                None
            }
        }
    }

    /// Seconds above the first bound and up to the second.
    pub(super) fn seconds(
        &mut self,
        field: &str,
        number: Option<f64>,
        default: f64,
        (above, most): (f64, f64),
    ) -> Duration {
        let seconds = number.unwrap_or(default);
        if seconds > above && seconds <= most {
            return Duration::try_from_secs_f64(seconds).unwrap_or_default();
        }
        self.misfit(field, format!("is {seconds}"));
        Duration::try_from_secs_f64(default).unwrap_or_default()
    }

    pub(super) fn seconds_if_set(&mut self, field: &str, number: Option<f64>, most: f64) -> Option<Duration> {
        number.map(|number| self.seconds(field, Some(number), 1.0, (0.0, most)))
    }

    /// A number in the range, both ends included.
    pub(super) fn number<T>(&mut self, field: &str, number: Option<T>, default: T, least: T, most: T) -> T
    where
        T: PartialOrd + std::fmt::Display + Copy,
    {
        match number {
            Some(number) if !(number >= least && number <= most) => {
                self.misfit(field, format!("is {number}"));
                default
            }
            Some(number) => number,
            None => default,
        }
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(
        &mut self,
        field: &str,
        text: Option<&str>,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(text) = text else { return default };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let shown: String = text.chars().take(70).collect();
                self.misfit(field, format!("is {shown:?}"));
                default
            }
        }
    }
}
