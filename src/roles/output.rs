//! Output of the subcommands: JSON, tables, stdout, and notices on stderr. No output panics.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use comfy_table::{Table, TableStyle};
use serde_json::Value;

use crate::exit::Exit;

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
