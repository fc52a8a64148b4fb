//! Debian's Prometheus that scrapes a fleet, label `pod` for each target.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// One that is gone when the test ends.
pub struct Prometheus {
    pub address: SocketAddrV4,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Prometheus {
    /// `targets` are pod names and addresses; `web` is the content of its web configuration; what it writes goes to
    /// `directory`.
    pub async fn start(
        directory: &Path,
        ip: Ipv4Addr,
        targets: &[(String, SocketAddrV4)],
        web: Option<&str>,
    ) -> Self {
        Self::start_with(directory, ip, targets, web, &[]).await
    }

    /// With further arguments.
    pub async fn start_with(
        directory: &Path,
        ip: Ipv4Addr,
        targets: &[(String, SocketAddrV4)],
        web: Option<&str>,
        further: &[&str],
    ) -> Self {
        Self::start_scraping(directory, ip, targets, web, further, "500ms").await
    }

    /// Scraping so often.
    pub async fn start_scraping(
        directory: &Path,
        ip: Ipv4Addr,
        targets: &[(String, SocketAddrV4)],
        web: Option<&str>,
        further: &[&str],
        interval: &str,
    ) -> Self {
        let file = |name: &str, content: &str| {
            let path = directory.join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let groups: Vec<Value> = targets
            .iter()
            .map(|(pod, address)| json!({"targets": [address.to_string()], "labels": {"pod": pod}}))
            .collect();
        let config = json!({
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [{"job_name": "fleet", "static_configs": groups}],
        });
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddrV4::new(ip, port);
        let mut arguments = vec![
            format!("--config.file={}", file("prometheus.yml", &config.to_string())),
            format!("--storage.tsdb.path={}", directory.join("tsdb").display()),
            format!("--web.listen-address={address}"),
        ];
        arguments.extend(web.map(|web| format!("--web.config.file={}", file("web.yml", web))));
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        let prometheus = Self { address, arguments, child: Mutex::default() };
        prometheus.launch().await;
        prometheus
    }

    /// Starts it (again), and waits until its port is open.
    pub async fn launch(&self) {
        let mut command = Command::new("prometheus");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.child.lock().unwrap() =
            Some(command.spawn().expect("Debian's prometheus: run scripts/need test"));
        let began = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "Prometheus does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}
