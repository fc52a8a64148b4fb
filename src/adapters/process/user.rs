//! Whose rights a command has: only root can choose, and a choice that was asked for is never skipped silently.

use std::{ffi::CString, path::PathBuf, sync::Once};

use nix::{
    errno::Errno,
    unistd::{Gid, Uid, User, geteuid, getgrouplist},
};

use crate::config::RunAs;

/// The user that is taken without being named, when it exists.
const DEFAULT_USER: &str = "kontrol";

/// The user to run as cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error(
        "KONTROL_USER={name}: no such user on this machine; create it, or set KONTROL_USER to an empty value"
    )]
    Unknown {
        /// As configured.
        name: String,
    },
    /// We are not root and not that user either.
    #[error(
        "KONTROL_USER={name}: only root can run commands as another user, and this process has uid {ours}"
    )]
    NotRoot {
        /// As configured.
        name: String,
        /// Our uid.
        ours: u32,
    },
    /// The user database could not be read.
    #[error("cannot look up the user '{name}': {source}")]
    LookUp {
        /// As configured.
        name: String,
        /// What the system said.
        source: Errno,
    },
}

/// A user to switch to, looked up before the fork: nothing in the child may allocate or read files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Uid,
    /// Its primary group.
    pub gid: Gid,
    /// All its groups.
    pub groups: Vec<Gid>,
    /// Its home directory.
    pub home: PathBuf,
}

/// Who runs the command: `None` is ourselves.
///
/// # Errors
/// A user that was named and cannot be had: a configuration error, checked at the start too.
pub fn resolve(user: &RunAs) -> Result<Option<Account>, UserError> {
    match user {
        RunAs::Ourselves => Ok(None),
        RunAs::KontrolIfThere if !geteuid().is_root() => Ok(None),
        RunAs::KontrolIfThere => {
            let account = look_up(DEFAULT_USER)?;
            if account.is_none() {
                warn_once();
            }
            Ok(account)
        }
        RunAs::User(name) => {
            let account = look_up(name)?.ok_or_else(|| UserError::Unknown { name: name.clone() })?;
            let ours = geteuid();
            match (ours == account.uid, ours.is_root()) {
                (true, false) => Ok(None),
                (_, true) => Ok(Some(account)),
                (false, false) => Err(UserError::NotRoot { name: name.clone(), ours: ours.as_raw() }),
            }
        }
    }
}

fn look_up(name: &str) -> Result<Option<Account>, UserError> {
    let failed = |source| UserError::LookUp { name: name.to_owned(), source };
    let Some(user) = User::from_name(name).map_err(failed)? else { return Ok(None) };
    let c_name = CString::new(name).map_err(|_| failed(Errno::EINVAL))?;
    let groups = getgrouplist(&c_name, user.gid).map_err(failed)?;
    Ok(Some(Account { name: user.name, uid: user.uid, gid: user.gid, groups, home: user.dir }))
}

fn warn_once() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "commands run as root: create the user '{DEFAULT_USER}', or name one in KONTROL_USER \
             (an empty value says that root is meant)"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_an_error_that_says_what_to_do() {
        let error = resolve(&RunAs::User("no-such-user-here".into())).unwrap_err();
        assert!(matches!(error, UserError::Unknown { .. }));
        assert!(error.to_string().contains("KONTROL_USER"));
    }

    #[test]
    fn nobody_is_switched_to_only_by_root() {
        match resolve(&RunAs::User("nobody".into())) {
            Ok(account) => assert_eq!(account.is_some(), geteuid().is_root()),
            Err(error) => assert!(matches!(error, UserError::NotRoot { .. }), "{error}"),
        }
        assert_eq!(resolve(&RunAs::Ourselves).unwrap(), None);
    }
}
