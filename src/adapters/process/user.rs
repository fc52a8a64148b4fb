//! The user that a command runs as. Only root can change it; a configured user that is not available is an error.

use std::{ffi::CString, path::PathBuf, sync::Once};

use nix::{
    errno::Errno,
    unistd::{Gid, Uid, User, geteuid, getgrouplist},
};

use crate::config::RunAs;

/// The default user, if it exists.
const DEFAULT_USER: &str = "kontrol";

/// The user to run as, the first member, is not available.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error(
        "KONTROL_USER={0}: no such user on this machine; create it, or set KONTROL_USER to an empty value"
    )]
    Unknown(String),
    /// This process is neither root nor that user; the second member is its uid.
    #[error("KONTROL_USER={0}: only root can run commands as another user, and this process has uid {1}")]
    NotRoot(String, u32),
    /// The user database could not be read.
    #[error("cannot look up the user '{0}': {1}")]
    LookUp(String, #[source] Errno),
}

/// A user to switch to, looked up before the fork, as the child must not allocate or read files.
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

/// The account to switch to; `None` keeps ours.
///
/// # Errors
/// A configured user that is not available.
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
            let account = look_up(name)?.ok_or_else(|| UserError::Unknown(name.clone()))?;
            let ours = geteuid();
            match (ours == account.uid, ours.is_root()) {
                (true, false) => Ok(None),
                (_, true) => Ok(Some(account)),
                (false, false) => Err(UserError::NotRoot(name.clone(), ours.as_raw())),
            }
        }
    }
}

fn look_up(name: &str) -> Result<Option<Account>, UserError> {
    let failed = |source| UserError::LookUp(name.to_owned(), source);
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
             (an empty value means root)"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_user_is_an_error_with_a_remedy() {
        let error = resolve(&RunAs::User("no-such-user-here".into())).unwrap_err();
        assert!(matches!(error, UserError::Unknown { .. }));
        assert!(error.to_string().contains("KONTROL_USER"));
    }

    #[test]
    fn only_root_can_switch_the_user() {
        match resolve(&RunAs::User("nobody".into())) {
            Ok(account) => assert_eq!(account.is_some(), geteuid().is_root()),
            Err(error) => assert!(matches!(error, UserError::NotRoot { .. }), "{error}"),
        }
        assert_eq!(resolve(&RunAs::Ourselves).unwrap(), None);
    }
}
