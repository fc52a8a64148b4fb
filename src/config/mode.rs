//! `KONTROL_MODE`: the roles of a process.

use super::environment::Reader;

/// The tokens of `KONTROL_MODE` with their implications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) slave: bool,
    pub(super) master: bool,
    pub(super) debug: bool,
}

impl Mode {
    /// `slave` unless a role is named; `debug` is both roles.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mut mode = Self::default();
        for token in reader.list("KONTROL_MODE") {
            match token {
                "slave" => mode.slave = true,
                "master" => mode.master = true,
                "debug" => mode = Self { slave: true, master: true, debug: true },
                "verbose" => {}
                _ => reader.complain(
                    "KONTROL_MODE",
                    format!(
                        "{token:?} is no mode; write a comma-separated set of slave, master, debug, verbose"
                    ),
                ),
            }
        }
        mode.slave |= !mode.master;
        mode
    }
}
