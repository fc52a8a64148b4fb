//! Colours and the width of the terminal. Output that is no terminal has neither.

use std::{env, io::IsTerminal};

use anstyle::{AnsiColor, Color};
use clap::ValueEnum;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Also in a file or a pipe.
    Always,
    /// Never.
    Never,
}

/// How text is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colored: bool,
    /// Columns of the terminal; `None`: no terminal.
    pub(super) width: Option<usize>,
    /// Only ASCII: TERM is dumb.
    pub(super) ascii: bool,
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
    /// Headers.
    Head,
    /// Less important than the rest.
    Faint,
}

impl Style {
    /// For stdout, by the environment.
    pub(super) fn of_stdout(choice: ColorChoice) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !dumb && !refused,
        };
        let told = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = || told.or_else(|| Some(usize::from(comfy_table::Table::new().width()?)));
        Self { colored, width: if terminal { width() } else { None }, ascii: dumb }
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colored || text.is_empty() {
            return text.to_owned();
        }
        let color = |color| anstyle::Style::new().fg_color(Some(Color::Ansi(color)));
        let style = match tone {
            Tone::Good => color(AnsiColor::Green),
            Tone::Warning => color(AnsiColor::Yellow),
            Tone::Bad => color(AnsiColor::Red),
            Tone::Head => anstyle::Style::new().bold(),
            Tone::Faint => anstyle::Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// `line` without colours, cut off at the width of the terminal.
    pub(super) fn fit(self, line: &str) -> String {
        let Some(width) = self.width.filter(|width| line.width() > *width) else { return line.to_owned() };
        let (mark, mut room) =
            if self.ascii { ("...", width.saturating_sub(3)) } else { ("…", width.saturating_sub(1)) };
        let fits = |c: &char| {
            let needed = c.width().unwrap_or(0);
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        };
        line.chars().take_while(fits).chain(mark.chars()).collect()
    }

    /// `text` in lines of the terminal's width; those after the first begin with `indent` spaces.
    pub(super) fn wrap(self, text: &str, indent: usize) -> String {
        let Some(width) = self.width.filter(|width| *width > 2 * indent) else { return text.to_owned() };
        let (mut wrapped, mut column) = (String::new(), 0);
        for word in text.split_inclusive(' ') {
            if column > indent && column + word.trim_end().width() > width {
                wrapped.truncate(wrapped.trim_end().len());
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            }
            wrapped.push_str(word);
            column += word.width();
        }
        wrapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(width: usize) -> Style {
        Style { width: Some(width), ..Style::default() }
    }

    #[test]
    fn a_line_is_cut_at_the_width_in_columns_and_not_without_a_terminal() {
        assert_eq!(narrow(6).fit("abcdefgh"), "abcde…");
        assert_eq!(narrow(6).fit("abcdef"), "abcdef");
        assert_eq!(narrow(6).fit("日本語日"), "日本…", "two columns each");
        assert_eq!(Style { ascii: true, ..narrow(6) }.fit("abcdefgh"), "abc...");
        assert_eq!(Style::default().fit("abcdefgh"), "abcdefgh");
    }

    #[test]
    fn words_go_to_the_next_line_with_its_indent() {
        assert_eq!(narrow(12).wrap("note  one two three", 4), "note  one\n    two\n    three");
        assert_eq!(narrow(3).wrap("note one", 4), "note one", "too narrow for an indent");
        assert_eq!(Style::default().wrap("note one", 4), "note one");
    }

    #[test]
    fn text_has_escapes_only_where_colours_are_on() {
        assert_eq!(Style::default().paint(Tone::Bad, "x"), "x");
        let painted = Style { colored: true, ..Style::default() }.paint(Tone::Bad, "x");
        assert_eq!(painted, "\u{1b}[31mx\u{1b}[0m");
    }
}
