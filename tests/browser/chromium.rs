//! Debian's Chromium without a screen, driven by its own chromedriver: WebDriver is JSON over HTTP, so that the client
//! that other tests use is enough.

use std::{net::Ipv4Addr, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{ports, stage::until};

/// A browser with one window and a profile that is thrown away.
pub(super) struct Browser {
    session: String,
    client: reqwest::Client,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts driver and browser.
    pub(super) async fn start() -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let port = ports::free(Ipv4Addr::LOCALHOST).port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver: `scripts/need browser` installs it");
        let profile = tempfile::tempdir().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let at = format!("http://127.0.0.1:{port}");
        until("the driver answers", async || client.get(format!("{at}/status")).send().await.is_ok()).await;
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", format!("--user-data-dir={}", profile.path().display()),
        ]});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer: Value =
            client.post(format!("{at}/session")).json(&wanted).send().await.unwrap().json().await.unwrap();
        let session = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}"));
        Self { session: format!("{at}/session/{session}"), client, _driver: driver, _profile: profile }
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        let answer = self.client.post(format!("{}/{path}", self.session)).json(body).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path} {body}: {answer}");
        answer["value"].clone()
    }

    /// Opens a page and waits until it is loaded.
    pub(super) async fn open(&self, page: &str) {
        self.command("url", &json!({"url": page})).await;
    }

    /// What a script in the page returns.
    pub(super) async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// The page's text, as a person sees it.
    pub(super) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// What the console said since the last call.
    pub(super) async fn console(&self) -> Vec<Value> {
        self.command("se/log", &json!({"type": "browser"})).await.as_array().cloned().unwrap_or_default()
    }

    /// A PNG of the window at that size.
    pub(super) async fn picture(&self, (width, height): (u32, u32)) -> Vec<u8> {
        self.command("window/rect", &json!({"width": width, "height": height})).await;
        let answer = self.client.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()
    }

    /// Shows pages as a device with this feature would, such as `prefers-color-scheme`, or as paper.
    pub(super) async fn emulate(&self, media: &str, feature: &str, value: &str) {
        let features = json!([{"name": feature, "value": value}]);
        let command =
            json!({"cmd": "Emulation.setEmulatedMedia", "params": {"media": media, "features": features}});
        self.command("goog/cdp/execute", &command).await;
    }

    /// Ends the browser; the driver ends with this value.
    pub(super) async fn quit(self) {
        self.client.delete(&self.session).send().await.unwrap();
    }
}
