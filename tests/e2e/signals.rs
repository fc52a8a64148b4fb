//! A master and ordinary signals; what its children inherit of them.

use nix::sys::signal::Signal;

use crate::stage::{Stage, until};

#[tokio::test]
async fn a_masters_children_have_default_dispositions_and_a_hangup_stops_it_in_order() {
    let stage = Stage::new();
    let out = stage.file("out");
    let callback = format!("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status >> {}; echo 1", out.display());
    let master = stage.master(1).env("KONTROL_CALLBACK", callback).env("KONTROL_SHELL_CALLBACK", "TRUE");
    let mut master = master.start().await;
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE, Signal::SIGALRM] {
        master.signal(signal);
    }
    until("the callback ran", async || stage.lines("out").len() >= 3).await;
    for line in stage.lines("out") {
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        for signal in [
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGPIPE,
            Signal::SIGALRM,
            Signal::SIGTERM,
        ] {
            assert_eq!(mask >> (signal as i32 - 1) & 1, 0, "{signal}: {line}");
        }
    }
    master.signal(Signal::SIGHUP);
    assert_eq!(master.ended().await.code(), Some(0), "{}", master.log());
}
