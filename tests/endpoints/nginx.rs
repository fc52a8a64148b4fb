//! The `nginx` format with a real nginx that the endpoints command reloads.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubervisor::{
    adapters::sink::endpoints::{EndpointsFile, Projection},
    alarms::Alarms,
    clock::Clock,
    config::EndpointsFormat,
};

use crate::stage::{CAP, Server, config, free_address, get, listing, until};

/// A minimal HTTP server that counts its requests; its thread ends with the process.
struct Backend {
    address: SocketAddrV4,
    served: Arc<AtomicUsize>,
}

impl Backend {
    fn start(last: u8) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 77, 2, last), 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let served = Arc::new(AtomicUsize::new(0));
        let counter = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let _ = stream.read(&mut [0; 1024]);
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        Self { address, served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn nginx_configuration(directory: &Path, listen: SocketAddrV4) -> String {
    let d = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {d}/{kind};\n"))
        .collect();
    format!(
        "daemon off; user root; worker_processes 1; pid {d}/nginx.pid; error_log {d}/error.log;\n\
         events {{}}\nhttp {{ access_log off;\n{temporary}\
         upstream fleet {{ include {d}/fleet.conf; }}\n\
         server {{ listen {listen}; location / {{ proxy_pass http://fleet; proxy_next_upstream off; }} }} }}\n"
    )
}

/// The process ids of nginx's workers; none while nginx does not run.
fn workers(directory: &Path) -> BTreeSet<u32> {
    let master = std::fs::read_to_string(directory.join("nginx.pid")).unwrap_or_default();
    let master = master.trim();
    let children =
        std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Sends `count` requests; returns how many got 200.
fn burst(listen: SocketAddrV4, count: usize) -> usize {
    (0..count).filter(|_| matches!(get(listen, "/"), Some((200, _)))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_backend_behind_nginx_gets_no_request_and_no_client_notices() {
    let directory = tempfile::tempdir().unwrap();
    let backends = [Backend::start(1), Backend::start(2), Backend::start(3)];
    let listen = free_address([127, 77, 2, 100]);
    let conf = directory.path().join("nginx.conf");
    std::fs::write(&conf, nginx_configuration(directory.path(), listen)).unwrap();
    // As in production, the file exists before nginx starts; until then the reload fails and raises an alarm.
    let reload = format!("nginx -c {} -s reload", conf.display());
    let settings = config(&directory.path().join("fleet.conf"), EndpointsFormat::Nginx, Some(reload));
    let alarms = Alarms::new(Clock::start());
    let file = EndpointsFile::start(&settings, "web", &alarms);
    file.project(listing(backends.iter().map(|backend| backend.address)));
    until("the include is written", || settings.path.exists()).await;
    let _nginx = Server::start("nginx", &["-c", &conf.display().to_string()]);
    until("all three serve", || burst(listen, 3) == 3 && backends.iter().all(|b| b.served() > 0)).await;

    let old_workers = workers(directory.path());
    assert!(!old_workers.is_empty());
    file.project(listing([backends[0].address, backends[2].address]));
    // A reload returns before the old workers stop accepting: until they have exited, requests may still reach all.
    let reloaded = || {
        assert_eq!(burst(listen, 12), 12, "a client noticed the reload");
        workers(directory.path()).is_disjoint(&old_workers)
    };
    until("the workers from before the reload have exited", reloaded).await;
    let before: Vec<usize> = backends.iter().map(Backend::served).collect();
    assert_eq!(burst(listen, 100), 100);
    assert_eq!(backends[1].served(), before[1], "a withheld backend was sent a request");
    assert_eq!(backends[0].served() - before[0] + backends[2].served() - before[2], 100);

    file.project(listing(backends.iter().map(|backend| backend.address)));
    until("it is admitted again", || burst(listen, 3) == 3 && backends[1].served() > before[1]).await;

    file.project(Projection { all_said_down: true, ..Projection::default() });
    until("the list is empty, and nginx accepts the configuration", || {
        matches!(get(listen, "/"), Some((502, _)))
    })
    .await;
    let test = Command::new("nginx").args(["-t", "-c"]).arg(&conf).output().unwrap();
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stderr));
    file.stop(CAP).await;
    assert!(alarms.up().is_empty(), "{:?}", alarms.up());
}
