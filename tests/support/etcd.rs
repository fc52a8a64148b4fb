//! A real etcd for one test: free ports, a directory of its own, gone when the test is.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use kubervisor::config::{EtcdConfig, StoreConfig};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

use crate::ports;

/// The user that [`Etcd::enable_login`] makes for the product.
pub const USER: &str = "kontrol";
/// That user's password.
pub const PASSWORD: &str = "a test's password";
const ROOT_PASSWORD: &str = "a test's root";

/// How an etcd is started.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// TLS, with client certificates required.
    pub tls: bool,
    /// `--quota-backend-bytes`.
    pub quota: Option<u64>,
    /// `--auth-token-ttl`, in seconds.
    pub token_ttl: Option<u32>,
    /// Tokens are JWT, which any change of the users makes invalid.
    pub jwt: bool,
}

/// A running (or killed, or stopped) etcd.
pub struct Etcd {
    directory: TempDir,
    options: Options,
    client_url: String,
    peer_url: String,
    child: Option<Child>,
    login: bool,
}

impl Etcd {
    /// Starts one with nothing special, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts one, and waits until it answers.
    pub async fn start_with(options: Options) -> Self {
        let mut etcd = Self::prepare(options);
        etcd.launch().await;
        etcd
    }

    /// Chooses ports and directory, starts nothing.
    pub fn prepare(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scheme = if options.tls { "https" } else { "http" };
        let free_port = || ports::free(Ipv4Addr::LOCALHOST).port();
        let (client, peer) = (free_port(), free_port());
        if options.tls {
            certificates(&directory);
        }
        Self {
            options,
            client_url: format!("{scheme}://127.0.0.1:{client}"),
            peer_url: format!("http://127.0.0.1:{peer}"),
            child: None,
            directory,
            login: false,
        }
    }

    /// Starts the process, again or for the first time, and waits until it answers.
    pub async fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.file("log")).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", "test", "--logger", "zap", "--log-level", "warn", "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(self.file("data"))
            .args(["--listen-client-urls", &self.client_url, "--advertise-client-urls", &self.client_url])
            .args(["--listen-peer-urls", &self.peer_url, "--initial-advertise-peer-urls", &self.peer_url])
            .args(["--initial-cluster", &format!("test={}", self.peer_url)]);
        if self.options.tls {
            command.arg("--client-cert-auth");
            for (flag, name) in
                [("--cert-file", "server.pem"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.pem")]
            {
                command.arg(flag).arg(self.file(name));
            }
        }
        if let Some(quota) = self.options.quota {
            command.args(["--quota-backend-bytes", &quota.to_string()]);
        }
        if self.options.jwt {
            let (public, private) = (self.file("jwt.pub"), self.file("jwt.key"));
            let key = KeyPair::generate().unwrap();
            fs::write(&public, key.public_key_pem()).unwrap();
            fs::write(&private, key.serialize_pem()).unwrap();
            let keys = format!("pub-key={},priv-key={}", public.display(), private.display());
            command.args(["--auth-token", &format!("jwt,{keys},sign-method=ES256,ttl=10m")]);
        }
        if let Some(ttl) = self.options.token_ttl {
            command.args(["--auth-token-ttl", &ttl.to_string()]);
        }
        let child = die_with_us(&mut command).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("etcd must be installed: apt-get install etcd-server"));
        let ready = async {
            while self.answers().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(Duration::from_secs(30), ready).await;
        assert!(
            ready.is_ok(),
            "etcd did not start: {}",
            fs::read_to_string(self.file("log")).unwrap_or_default()
        );
    }

    async fn answers(&self) -> Result<(), Box<dyn std::error::Error>> {
        let ask = async {
            let mut client = self.connect().await?;
            client.get("ready", None).await.map(drop)
        };
        Ok(tokio::time::timeout(Duration::from_secs(2), ask).await??)
    }

    /// The configuration of a store on it.
    pub fn config(&self) -> StoreConfig {
        StoreConfig::Etcd(self.etcd_config())
    }

    /// The same, to be changed.
    pub fn etcd_config(&self) -> EtcdConfig {
        let tls = self.options.tls;
        EtcdConfig {
            endpoints: vec![self.client_url.clone()],
            login: self.login.then(|| (USER.to_owned(), self.file("password"))),
            ca: tls.then(|| self.file("ca.pem")),
            client: tls.then(|| (self.file("client.pem"), self.file("client.key"))),
        }
    }

    /// `host:port`, as `KONTROL_ETCD` takes it.
    pub fn endpoint(&self) -> &str {
        self.client_url.split_once("://").unwrap().1
    }

    /// A client with all rights.
    pub async fn connect(&self) -> Result<Client, etcd_client::Error> {
        let mut options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        if self.options.tls {
            let read = |name| fs::read(self.file(name)).unwrap();
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(read("ca.pem")))
                    .identity(Identity::from_pem(read("client.pem"), read("client.key"))),
            );
        }
        if self.login {
            options = options.with_user("root", ROOT_PASSWORD);
        }
        Client::connect([&self.client_url], Some(options)).await
    }

    /// Turns logins on: [`USER`] may read and write below `/kontrol/`.
    pub async fn enable_login(&mut self) {
        use etcd_client::{Permission, PermissionType};
        let mut client = self.connect().await.unwrap();
        client.user_add("root", ROOT_PASSWORD, None).await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.user_add(USER, PASSWORD, None).await.unwrap();
        client.role_add("kontrol").await.unwrap();
        let range = Permission::new(PermissionType::Readwrite, "/kontrol/").with_prefix();
        client.role_grant_permission("kontrol", range).await.unwrap();
        client.user_grant_role(USER, "kontrol").await.unwrap();
        client.auth_enable().await.unwrap();
        self.set_password_file(PASSWORD);
        self.login = true;
    }

    /// What the product takes for the password of [`USER`].
    pub fn set_password_file(&self, password: &str) {
        fs::write(self.file("password"), format!("{password}\n")).unwrap();
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL; the data stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("etcd runs");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The kernel kills the process when the test's thread ends, however it ends.
fn die_with_us(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is one system call, and nothing else runs between fork and exec.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) }
}

/// A CA, a server's certificate for loopback, and a client's, as PEM files.
fn certificates(directory: &TempDir) {
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca.pem", ca.pem());
    for (name, names, usage) in [
        ("server", vec!["127.0.0.1".to_owned(), "localhost".to_owned()], ExtendedKeyUsagePurpose::ServerAuth),
        ("client", vec!["kontrol".to_owned()], ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
        write(&format!("{name}.pem"), params.signed_by(&key, &ca).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}
