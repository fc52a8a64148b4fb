//! A log or an output that nobody takes stops no work.

use std::{
    fs::File,
    process::{Output, Stdio},
};

use tokio::time::timeout;

use crate::fixture::{CAP, Master, Reaction, Recipe, kubervisor};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn an_agent_whose_log_goes_nowhere_goes_on_after_lost_keepalives() {
    for log in [full(), closed_pipe()] {
        let answer = |number| if number % 3 == 1 { Reaction::Swallow } else { Reaction::Answer };
        let master = Master::moody(Box::new(answer));
        let agent = Recipe::of_master(&master).with("KONTROL_TTL", "3").with("KONTROL_PING", "0.2");
        let _agent = agent.start_logging_to(log);
        master.hears(10).await;
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is() {
    for (stdout, code) in [(closed_pipe(), 0), (full(), 1)] {
        let mut command = kubervisor(["crd"]);
        command.stdout(stdout).stderr(Stdio::piped());
        let output: Output =
            timeout(CAP, command.spawn().unwrap().wait_with_output()).await.expect("it ends").unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr.contains("cannot write to stdout"), code == 1, "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[tokio::test]
async fn an_error_that_nobody_reads_keeps_its_exit_code() {
    for arguments in [&["check", "/does/not/exist"][..], &[], &["run", "--no-such"]] {
        for stderr in [full(), closed_pipe()] {
            let mut command = kubervisor(arguments);
            let mut running = command.stderr(stderr).spawn().unwrap();
            let status = timeout(CAP, running.wait()).await.expect("it ends").unwrap();
            assert_eq!(status.code(), Some(2), "{arguments:?}");
        }
    }
}
