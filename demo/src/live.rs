//! The demo's output while it runs: plain lines, and in a terminal three more below them that are redrawn.

use std::{
    io::{self, IsTerminal, Stdout, Write},
    time::Duration,
};

use crossterm::{
    cursor, queue,
    style::{Color, Print, ResetColor, SetForegroundColor, Stylize},
    terminal::{self, Clear, ClearType},
};
use tokio::{task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    stage::name,
    story::{AppState, Event, Kind, Line, Sample, Story},
};

const FRAME: Duration = Duration::from_millis(100);

/// The task that prints.
pub(super) struct Screen {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Screen {
    /// Prints the story as it grows.
    pub(super) fn start(story: Story) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut printer = Printer::new();
            let mut frame = interval(FRAME);
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    _ = frame.tick() => {}
                }
                // The demo goes on when the terminal is closed.
                let _printed = printer.print(&story, true);
            }
            let _printed = printer.print(&story, false);
        });
        Self { stop, task }
    }

    /// Prints the rest, without the live part.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        let _ended = self.task.await;
    }
}

struct Printer {
    out: Stdout,
    /// It is a terminal.
    terminal: bool,
    /// Lines of the story that were printed.
    printed: usize,
    /// Lines of the live part that are on the screen.
    drawn: u16,
}

impl Printer {
    fn new() -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out, printed: 0, drawn: 0 }
    }

    fn print(&mut self, story: &Story, live: bool) -> io::Result<()> {
        let lines = story.lines_after(self.printed);
        self.printed += lines.len();
        if !self.terminal {
            lines.iter().try_for_each(|line| writeln!(self.out, "{}", plain(line)))?;
            return self.out.flush();
        }
        self.erase()?;
        for line in &lines {
            self.coloured(line)?;
        }
        if live && let Some(sample) = story.newest() {
            self.draw(&sample, story.now())?;
        }
        self.out.flush()
    }

    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            queue!(self.out, cursor::MoveToPreviousLine(self.drawn), Clear(ClearType::FromCursorDown))?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn coloured(&mut self, line: &Line) -> io::Result<()> {
        let text = plain(line);
        match line {
            Line::Act { .. } => queue!(self.out, Print(text.bold()), Print("\n")),
            Line::Verdict(verdict) => {
                let colour = if verdict.held { Color::Green } else { Color::Red };
                let (word, figures) = text.split_at(4);
                let word = word.with(colour).bold();
                queue!(self.out, Print(word), Print(figures), Print("\n"))
            }
            Line::Event(event) => {
                let colour = colour(event.kind);
                queue!(self.out, SetForegroundColor(colour), Print(text), ResetColor, Print("\n"))
            }
        }
    }

    fn draw(&mut self, sample: &Sample, now: f64) -> io::Result<()> {
        let width = terminal::size().map_or(80, |(columns, _)| usize::from(columns)).max(20);
        queue!(self.out, Print("─".repeat(width.min(78)).dark_grey()), Print("\n"))?;
        for (app, state) in sample.apps.iter().enumerate() {
            let name = name(app);
            let number = name.trim_start_matches("app-").to_owned();
            let (mark, colour) = drawn(*state);
            queue!(self.out, Print(format!("{mark} {number}  ").with(colour)))?;
        }
        let master = match (sample.master, sample.panic) {
            (false, _) => "master away".with(Color::Red),
            (true, true) => "PANIC: nobody is withheld".with(Color::Magenta),
            (true, false) => "master leads".with(Color::Green),
        };
        let figures = format!(
            "\n{now:5.1} s   serving {:2}   floor {:2}   failures {:3.0}/s   ",
            sample.listed, sample.floor, sample.failures
        );
        queue!(self.out, Print(figures), Print(master), Print("\n"))?;
        self.drawn = 3;
        Ok(())
    }
}

fn drawn(state: AppState) -> (char, Color) {
    match state {
        AppState::Serving => ('●', Color::Green),
        AppState::Bad => ('●', Color::Yellow),
        AppState::Withheld => ('○', Color::Red),
        AppState::Waiting => ('○', Color::Blue),
        AppState::Dead => ('✕', Color::DarkGrey),
    }
}

fn colour(kind: Kind) -> Color {
    match kind {
        Kind::Fault => Color::Yellow,
        Kind::Out => Color::Red,
        Kind::Back => Color::Green,
        Kind::Alarm => Color::Magenta,
        Kind::Note => Color::DarkGrey,
    }
}

fn plain(line: &Line) -> String {
    match line {
        Line::Act { number, title } => format!("\nAct {number}: {title}"),
        Line::Event(Event { at, text, .. }) => format!("{at:6.1} s  {text}"),
        Line::Verdict(verdict) => {
            format!("{}  {}", if verdict.held { "PASS" } else { "FAIL" }, verdict.figures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::Verdict;

    #[test]
    fn a_verdict_begins_with_its_word() {
        let verdict = |held| plain(&Line::Verdict(Verdict { held, figures: "x".to_owned() }));
        assert_eq!((verdict(true).as_str(), verdict(false).as_str()), ("PASS  x", "FAIL  x"));
    }
}
