//! Why a command did not start, sorted by the remedy.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
};

use rustix::io::Errno;

use super::{image, user::UserError};

/// What to do about a carriage return in the first line of a script.
const CRLF: &str = "the script has CRLF line ends: convert them, for instance with sed -i 's/\\r$//'";

/// Bytes of the first line that the kernel reads.
const FIRST_LINE: u64 = 256;

/// A command that did not run. Each variant holds the program as configured and the kernel's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program does not exist.
    #[error("cannot start '{0}': no such program; check the path and $PATH")]
    NotFound(String, #[source] io::Error),
    /// The script exists, and the interpreter of its first line, the second member, does not.
    #[error("cannot start '{0}': its first line names the interpreter {1:?}, which does not exist; {advice}",
        advice = if .1.ends_with('\r') { CRLF } else { "install it, or name another" })]
    NoInterpreter(String, String, #[source] io::Error),
    /// It exists, but this user may not execute it, or its format is unknown.
    #[error("cannot start '{0}': not executable ({1}); chmod +x it, and begin scripts with #!")]
    NotExecutable(String, #[source] io::Error),
    /// The working directory, the second member, cannot be entered.
    #[error("cannot start '{0}' in {1}: {2}")]
    NoDirectory(String, String, #[source] io::Error),
    /// No descriptors are left, in this process or on this machine.
    #[error("cannot start '{0}': no descriptors left ({1}); raise the limit of open files")]
    NoDescriptors(String, #[source] io::Error),
    /// Arguments and environment exceed the kernel's limit.
    #[error("cannot start '{0}': arguments and environment are too long ({1})")]
    TooLong(String, #[source] io::Error),
    /// No process or no memory is available.
    #[error("cannot start '{0}': no process or memory available ({1})")]
    NoResources(String, #[source] io::Error),
    /// The user to run as is not available: a configuration error.
    #[error(transparent)]
    User(#[from] UserError),
    /// Any other failure between fork and exec, or of the pipes.
    #[error("cannot run '{0}': {1}")]
    Failed(String, #[source] io::Error),
}

impl ProcessError {
    /// Sorts the kernel's error at the start of `program`.
    pub(super) fn classify(program: &str, source: io::Error) -> Self {
        let program = program.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => match interpreter(&program) {
                Some(interpreter) => Self::NoInterpreter(program, interpreter, source),
                None => Self::NotFound(program, source),
            },
            Some(Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR) => Self::NotExecutable(program, source),
            Some(Errno::MFILE | Errno::NFILE) => Self::NoDescriptors(program, source),
            Some(Errno::TOOBIG) => Self::TooLong(program, source),
            Some(Errno::AGAIN | Errno::NOMEM) => Self::NoResources(program, source),
            _ => Self::Failed(program, source),
        }
    }

    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoInterpreter { .. } => "not_found",
            Self::NotExecutable { .. } => "not_executable",
            Self::NoDirectory { .. } => "no_directory",
            Self::NoDescriptors { .. } => "no_descriptors",
            Self::TooLong { .. } => "too_long",
            Self::NoResources { .. } => "no_resources",
            Self::User(_) => "user",
            Self::Failed { .. } => "failed",
        }
    }
}

/// The interpreter that the script's first line names, with a carriage return that the kernel takes for a part of it.
fn interpreter(program: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = image::candidates(program, &path).ok()?;
    let mut script = candidates.iter().find_map(|path| File::open(path.to_str().ok()?).ok())?;
    let mut start = Vec::new();
    script.by_ref().take(FIRST_LINE).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.trim_start_matches([' ', '\t']).split([' ', '\t']).next().map(str::to_owned)
}
