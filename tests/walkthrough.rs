//! The documentation's examples on a real control plane with our own programs: the walk-through, the admission policy,
//! and an agent that takes its identity from its pod.
//!
//! `docs/walkthrough.md` is itself the test. Its blocks marked `console` are one session of bash, from the first to the
//! last:
//!
//! - a line that begins with `$ ` is a command, lines that begin with `> ` go on with it; it must end with 0;
//! - all other lines are what it prints: each must be there, in this order, others may stand between. `…` is any text,
//!   and so much white space is as good as any;
//! - a command that only reads (`kubectl get`, `kubectl describe`, `kubectl kubervisor`, `curl`) is repeated until it
//!   shows what the document shows.
//!
//! The session starts in a directory with copies of `crds` and `examples`, with our programs and the plane's `kubectl` in
//! its `PATH`. The ports 8086, 8087 and 8300 are replaced by free ones everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "walkthrough/admission.rs"]
mod admission;
#[path = "support/controller.rs"]
mod controller;
#[path = "walkthrough/document.rs"]
mod document;
#[path = "walkthrough/own_pod.rs"]
mod own_pod;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/stage.rs"]
mod stage;
#[path = "walkthrough/terminal.rs"]
mod terminal;

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use self::{
    document::{Step, missing, steps},
    plane::{Plane, User},
    terminal::Terminal,
};

/// Longest time until a read command shows the documented output.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_walk_through_works_line_by_line() {
    let plane = plane::alone().await;
    let ports = Ports::free();
    let text = ports.replaced(&fs::read_to_string(root().join("docs/walkthrough.md")).unwrap());
    let desk = tempfile::tempdir().unwrap();
    furnish(desk.path(), &plane, &ports);
    let mut terminal = Terminal::open(desk.path(), &plane.directory().join("bin"));
    terminal.run(&ports.settings());
    for step in steps(&text) {
        take(&mut terminal, &step);
    }
}

/// Takes one step and compares; again, while it only looks.
fn take(terminal: &mut Terminal, step: &Step) {
    let began = Instant::now();
    loop {
        let (code, output) = terminal.run(&step.command);
        let missing = missing(&step.expected, &output);
        if code == 0 && missing.is_none() {
            println!("{} ({:.1} s)\n{output}", step.command, began.elapsed().as_secs_f64());
            return;
        }
        assert!(
            step.looks() && began.elapsed() < PATIENCE,
            "docs/walkthrough.md:{}: {}\nended with {code} and lacks {missing:?}; it printed:\n{output}\n{}",
            step.line,
            step.command,
            terminal.log("controller.log"),
        );
    }
}

/// The directory that the reader is in, with what is in the repository and a kubeconfig of the reader's own.
fn furnish(desk: &Path, plane: &Plane, ports: &Ports) {
    for folder in ["crds", "examples/kubernetes"] {
        fs::create_dir_all(desk.join(folder)).unwrap();
        for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap();
            fs::write(desk.join(folder).join(entry.file_name()), ports.replaced(&text)).unwrap();
        }
    }
    fs::create_dir(desk.join(".kube")).unwrap();
    fs::copy(plane.kubeconfig(User::Admin), desk.join(".kube/config")).unwrap();
}

/// The ports of the document, and those that are free here.
struct Ports([(&'static str, u16); 3]);

impl Ports {
    fn free() -> Self {
        Self(["8086", "8087", "8300"].map(|name| (name, ports::free(Ipv4Addr::LOCALHOST).port())))
    }

    /// Where a controller is without being told.
    fn settings(&self) -> String {
        let [(_, addr), (_, admin), _] = self.0;
        format!("export KUBERVISOR_ADDR=127.0.0.1:{addr} KUBERVISOR_ADMIN_ADDR=127.0.0.1:{admin}")
    }

    fn replaced(&self, text: &str) -> String {
        // By way of marks: a free port may contain another's name.
        let marks = ["\u{1}", "\u{2}", "\u{3}"];
        let marked = marks
            .iter()
            .zip(&self.0)
            .fold(text.to_owned(), |text, (mark, (name, _))| text.replace(name, mark));
        marks
            .iter()
            .zip(&self.0)
            .fold(marked, |text, (mark, (_, port))| text.replace(mark, &port.to_string()))
    }
}
