//! Takes one field at a time out of the raw manifest. Bounds and defaults are those of the table of fields.

use std::{fmt::Display, str::FromStr, time::Duration};

use super::super::{fields, report::Report};
use crate::decide::label::is_dns_label;

/// Takes the fields below one path. A value that does not fit is reported, and the default put in its place.
pub(super) struct Take<'r, 'd> {
    pub(super) report: &'r mut Report<'d>,
    pub(super) path: &'r str,
}

impl Take<'_, '_> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    fn most(&self, field: &str) -> usize {
        fields::find(&self.at(field)).map_or(usize::MAX, |field| field.form.most())
    }

    pub(super) fn add(&mut self, field: &str, what: impl Into<String>, write: &str) {
        let path = self.at(field);
        self.report.add(&path, what, write);
    }

    pub(super) fn misfit(&mut self, field: &str, what: impl Into<String>) {
        let path = self.at(field);
        self.report.misfit(&path, what);
    }

    /// A text; one that is missing is reported.
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
        let longest = self.most(field);
        if text.chars().count() > longest {
            self.misfit(field, format!("is longer than {longest} characters"));
        }
        text.to_owned()
    }

    /// A DNS-1123 label; one that is missing is reported.
    pub(super) fn label(&mut self, field: &str, text: Option<&str>) -> String {
        match text {
            Some(label) if !is_dns_label(label) => {
                let shown: String = label.chars().take(70).collect();
                self.misfit(field, format!("is {shown:?}, which is no DNS label"));
                String::new()
            }
            _ => self.required(field, text),
        }
    }

    /// A list of 1 to so many items.
    pub(super) fn list<T: Clone>(&mut self, field: &str, items: &[T]) -> Vec<T> {
        if !(1..=self.most(field)).contains(&items.len()) {
            self.misfit(field, format!("has {} items", items.len()));
        }
        items.to_vec()
    }

    /// A number within its bounds, or the default.
    pub(super) fn number<T>(&mut self, field: &str, number: Option<T>) -> T
    where
        T: Copy + Display + Into<f64> + FromStr + Default,
    {
        self.number_if_set(field, number).unwrap_or_else(|| fields::usual(&self.at(field)))
    }

    /// A number within its bounds.
    pub(super) fn number_if_set<T: Copy + Display + Into<f64>>(
        &mut self,
        field: &str,
        number: Option<T>,
    ) -> Option<T> {
        let number = number?;
        if fields::find(&self.at(field)).is_some_and(|field| field.form.admits(number.into())) {
            return Some(number);
        }
        self.misfit(field, format!("is {number}"));
        None
    }

    /// A number of percent, at most 100.
    pub(super) fn percent_if_set(&mut self, field: &str, number: Option<u32>) -> Option<u8> {
        self.number_if_set(field, number).and_then(|percent| percent.try_into().ok())
    }

    /// A number of seconds, or the default.
    pub(super) fn seconds(&mut self, field: &str, number: Option<f64>) -> Duration {
        Duration::try_from_secs_f64(self.number(field, number)).unwrap_or_default()
    }

    /// A number of seconds.
    pub(super) fn seconds_if_set(&mut self, field: &str, number: Option<f64>) -> Option<Duration> {
        self.number_if_set(field, number).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// The value of one of the field's words, or that of the default; `values` are in the order of the words.
    pub(super) fn word<T: Copy, const N: usize>(
        &mut self,
        field: &str,
        text: Option<&str>,
        values: [T; N],
    ) -> T {
        let found = fields::find(&self.at(field));
        let Some(fields::Form::Words(words)) = found.map(|field| field.form) else { return values[0] };
        let value =
            |text| words.iter().zip(values).find_map(|(word, value)| (*word == text).then_some(value));
        let given = text.and_then(value);
        if let Some(text) = text
            && given.is_none()
        {
            let shown: String = text.chars().take(70).collect();
            self.misfit(field, format!("is {shown:?}"));
        }
        given.or_else(|| value(found?.default)).unwrap_or(values[0])
    }
}
