//! Program, arguments and environment in the kernel's form, allocated before the child exists.

use std::{
    collections::BTreeMap,
    ffi::{CString, NulError, OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    ptr,
};

use nix::libc::c_char;

use super::{Job, tree, user::Account};
use crate::config::CommandLine;

/// The search path without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs scripts without `#!`.
const SHELL: &str = "/bin/sh";

/// The program as configured, for messages.
pub(super) fn program(command: &CommandLine) -> &str {
    match command {
        CommandLine::Words(words) => words.first().map_or("", String::as_str),
        CommandLine::Shell(_) => SHELL,
    }
}

/// The arguments of exec.
#[derive(Debug)]
pub(super) struct Image {
    /// Paths to try, in order.
    pub(super) candidates: Vec<CString>,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
}

impl Image {
    pub(super) fn new(job: &Job, account: Option<&Account>, marker: &str) -> Result<Self, NulError> {
        let environment = environment(job, account, marker);
        let program = program(&job.command);
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        let arguments = match &job.command {
            CommandLine::Words(words) => words.clone(),
            CommandLine::Shell(line) => vec![SHELL.to_owned(), "-c".to_owned(), line.clone()],
        };
        Ok(Self {
            candidates: candidates(program, path)?,
            arguments: arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?,
            environment: environment
                .into_iter()
                .map(|(name, value)| {
                    let mut pair = name.into_vec();
                    pair.push(b'=');
                    pair.extend_from_slice(value.as_bytes());
                    CString::new(pair)
                })
                .collect::<Result<_, _>>()?,
        })
    }

    /// The image of the shell that runs candidate `index` as a script.
    pub(super) fn into_script(mut self, index: usize) -> Result<Self, NulError> {
        let script = self.candidates.swap_remove(index);
        self.arguments.splice(..self.arguments.len().min(1), [CString::new(SHELL)?, script]);
        self.candidates = vec![CString::new(SHELL)?];
        Ok(self)
    }
}

/// A null-terminated array of pointers to `strings`, valid as long as they are.
pub(super) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

pub(super) fn candidates(program: &str, path: &OsStr) -> Result<Vec<CString>, NulError> {
    if program.is_empty() || program.contains('/') {
        return Ok(vec![CString::new(program)?]);
    }
    let directories = path.as_bytes().split(|byte| *byte == b':');
    directories
        .map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", program.as_bytes()].concat())
        })
        .collect()
}

fn environment(job: &Job, account: Option<&Account>, marker: &str) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = if job.clear_environment {
        BTreeMap::from([("PATH".into(), DEFAULT_PATH.into())])
    } else {
        std::env::vars_os().collect()
    };
    for name in &job.without {
        environment.remove(name);
    }
    if let Some(account) = account {
        environment.insert("HOME".into(), account.home.clone().into());
        environment.insert("USER".into(), account.name.clone().into());
        environment.insert("LOGNAME".into(), account.name.clone().into());
    }
    environment.extend(job.environment.iter().cloned());
    environment.insert(tree::MARKER.into(), marker.into());
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_looked_for_along_the_path() {
        let found = |program, path: &str| {
            let all = candidates(program, OsStr::new(path)).unwrap();
            all.into_iter().map(|path| path.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found("ls", "/bin::/usr/bin"), ["/bin/ls", "./ls", "/usr/bin/ls"]);
        assert_eq!(found("./ls", "/bin"), ["./ls"]);
        assert_eq!(found("", "/bin"), [""]);
    }

    #[test]
    fn what_is_set_last_wins_and_a_nul_is_refused() {
        let mut job = Job::new("test", CommandLine::Words(vec!["prog".into(), "arg".into()]));
        job.clear_environment = true;
        job.environment = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
        let image = Image::new(&job, None, "m").unwrap();
        let environment: Vec<&str> = image.environment.iter().map(|pair| pair.to_str().unwrap()).collect();
        assert_eq!(environment[..2], ["A=2", "KUBERVISOR_JOB=m"]);
        let script = image.into_script(0).unwrap();
        let words: Vec<&str> = script.arguments.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["/bin/sh", "/usr/local/sbin/prog", "arg"]);
        job.environment = vec![("A".into(), "\0".into())];
        assert!(Image::new(&job, None, "m").is_err());
    }
}
