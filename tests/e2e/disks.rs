//! File systems that cannot do what others can.

use std::{path::PathBuf, process::Command};

use crate::stage::{Puppet, Stage, keeping_alive, until};

/// Refuses to sync directories, as vboxsf, older CIFS and some FUSE file systems do; no file system at hand does.
const NO_DIRECTORY_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    struct stat found;
    if (fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) { errno = atoi(getenv("SYNC_ERRNO")); return -1; }
    return real(fd);
}
"#;

/// The library that makes it so, for `LD_PRELOAD`.
fn no_directory_sync(stage: &Stage) -> PathBuf {
    let (source, library) = (stage.write("sync.c", NO_DIRECTORY_SYNC), stage.file("sync.so"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}

#[tokio::test]
async fn the_command_runs_after_every_write_also_where_a_directory_cannot_be_synced() {
    for (errno, alarmed) in
        [(rustix::io::Errno::INVAL, false), (rustix::io::Errno::NOTSUP, false), (rustix::io::Errno::IO, true)]
    {
        let stage = Stage::new();
        let library = no_directory_sync(&stage);
        let seen = stage.file("seen");
        let command =
            format!("(cat {} | tr '\\n' ' '; echo) >> {}", stage.file("list").display(), seen.display());
        let master = stage
            .master(1)
            .env("KUBERVISOR_ENDPOINTS", stage.file("list").display())
            .env("KUBERVISOR_TARGET_PORT", 80)
            .env("KUBERVISOR_ENDPOINTS_COMMAND", command)
            .env("LD_PRELOAD", library.display())
            .env("SYNC_ERRNO", errno.raw_os_error());
        let master = master.start().await;
        let mut pods = Vec::new();
        for host in [10, 11, 12] {
            pods.push(Puppet::new(&stage, host));
            let line = format!("{}:80", stage.ip(host));
            keeping_alive(&master, &mut pods, async {
                let what = format!("the command sees pod {host}, {errno}");
                until(&what, async || stage.lines("seen").last().is_some_and(|last| last.contains(&line)))
                    .await;
            })
            .await;
        }
        assert_eq!(master.log().contains("cannot sync"), alarmed, "{errno}: {}", master.log());
    }
}
