//! Why a command did not start, as far as the caller can do something about it.

use std::io;

use rustix::io::Errno;

use super::user::UserError;

/// A command that did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program, or the interpreter that its first line names, does not exist.
    #[error("cannot start '{program}': no such program; check the path and $PATH")]
    NotFound {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It exists and may not be executed by this user, or is no executable format.
    #[error("cannot start '{program}': not executable ({source}); chmod +x it, and begin scripts with #!")]
    NotExecutable {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No directory to run in.
    #[error("cannot start '{program}' in {directory}: {source}")]
    NoDirectory {
        /// As configured.
        program: String,
        /// Where it should have run.
        directory: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Our descriptors, or the machine's, are used up.
    #[error("cannot start '{program}': no descriptors left ({source}); raise the limit of open files")]
    NoDescriptors {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Arguments and environment together are more than the kernel takes.
    #[error("cannot start '{program}': arguments and environment are too long ({source})")]
    TooLong {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No process or no memory to be had.
    #[error("cannot start '{program}': no process or memory to be had ({source})")]
    NoResources {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The user to run as cannot be had: a configuration error.
    #[error(transparent)]
    User(#[from] UserError),
    /// Something else went wrong between fork and exec, or with its pipes.
    #[error("cannot run '{program}': {source}")]
    Failed {
        /// As configured.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ProcessError {
    /// Sorts what the kernel said about starting `program`.
    pub(super) fn sort(program: &str, source: io::Error) -> Self {
        let program = program.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NotFound { program, source },
            Some(Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR) => Self::NotExecutable { program, source },
            Some(Errno::MFILE | Errno::NFILE) => Self::NoDescriptors { program, source },
            Some(Errno::TOOBIG) => Self::TooLong { program, source },
            Some(Errno::AGAIN | Errno::NOMEM) => Self::NoResources { program, source },
            _ => Self::Failed { program, source },
        }
    }

    /// A static name of the kind, for a metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
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
