//! The `kubervisor` command.

fn main() {}
