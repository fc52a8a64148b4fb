//! Output of the subcommands: JSON, tables, stdout, and notices on stderr. No output panics.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use comfy_table::{Table, TableStyle};
use serde_json::Value;

use crate::{decide::keepalive::is_printable, exit::Exit};

/// Indented JSON with a newline at its end.
pub(super) fn json(value: &Value) -> Result<String, Exit> {
    Ok(serde_json::to_string_pretty(value).context("cannot write it as JSON")? + "\n")
}

/// The array at `pointer`; empty when there is none.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `style` is one of comfy-table's presets.
pub(super) fn table(style: TableStyle, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header.iter().copied()).add_rows(rows);
    table
}

/// Writes `text` to stdout. A reader that has closed the pipe, such as `head`, has what it wanted: no error.
///
/// # Errors
/// 1 when stdout does not take it, for example on a full disk.
pub fn print(text: &str) -> Result<(), Exit> {
    print_while_read(text).map(|_read| ())
}

/// As [`print`]; `false` when the reader has closed the pipe.
pub(super) fn print_while_read(text: &str) -> Result<bool, Exit> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Exit::Failed(anyhow::Error::new(error).context("cannot write to stdout"))),
    }
}

/// Writes `text` to stderr, best effort: nobody may read it.
pub fn notice(text: &str) {
    let _best_effort = std::io::stderr().lock().write_all(text.as_bytes());
}

/// With four significant digits; large and small numbers with an exponent.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e7).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = match size {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        0.1.. => 4,
        0.01.. => 5,
        _ => 6,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// The first characters, with those that are invisible or turn the direction of text as `\u{...}`.
pub(super) fn visible(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(limit) {
        match character {
            '\n' => shown.push(character),
            _ if is_printable(character.encode_utf8(&mut [0; 4])) => shown.push(character),
            _ => shown.extend(character.escape_unicode()),
        }
    }
    if text.chars().nth(limit).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

/// XML, for a text or an attribute. Control characters but the newline, which XML has no form for, are the caller's.
pub(super) fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('?'),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let numbers = [0.0, 3.5, 0.123_456, 12.345, -12_345.678, 0.001_234_5, 0.000_02, 7e12, -3.0];
        let expected = ["0", "3.5", "0.1235", "12.35", "-12346", "0.001234", "2.000e-5", "7.000e12", "-3"];
        assert_eq!(numbers.map(number), expected);
    }

    #[test]
    fn marks_that_turn_text_and_control_characters_are_written_out_and_long_text_is_cut() {
        assert_eq!(visible("web\u{202e}1\u{7}", 100), "web\\u{202e}1\\u{7}");
        assert_eq!(visible(&"x".repeat(10_000), 600).chars().count(), 601);
    }
}
