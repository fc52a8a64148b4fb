//! A Prometheus with a history that the test writes: `promtool` makes blocks of it, and a real server reads them.
#![allow(dead_code, reason = "several test binaries share it, none uses all")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use crate::scraper::Prometheus;

/// Gauges by name, each with its samples; the samples of one series must be added in order of time.
#[derive(Default)]
pub(crate) struct Backfill {
    families: BTreeMap<String, String>,
}

impl Backfill {
    /// Adds a sample at a Unix time in seconds. `labels` are as in the exposition format, without braces.
    pub(crate) fn sample(&mut self, metric: &str, labels: &str, value: f64, at: f64) {
        let family = self.families.entry(metric.to_owned()).or_default();
        writeln!(family, "{metric}{{{labels}}} {value} {at}").unwrap();
    }

    /// OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (metric, samples) in &self.families {
            writeln!(text, "# TYPE {metric} gauge").unwrap();
            text.push_str(samples);
        }
        text + "# EOF\n"
    }

    /// A server with this history, with further arguments.
    pub(crate) async fn serve(&self, directory: &Path, ip: Ipv4Addr, further: &[&str]) -> Prometheus {
        let input = directory.join("history.om");
        std::fs::write(&input, self.text()).unwrap();
        let made = Command::new("promtool")
            // One block: the text is read once for each.
            .args(["tsdb", "create-blocks-from", "--max-block-duration=400h", "openmetrics"])
            .arg(&input)
            .arg(directory.join("tsdb"))
            .stdin(Stdio::null())
            .output()
            .expect("Debian's prometheus: run scripts/need test");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::remove_file(&input).unwrap();
        let arguments = [&["--storage.tsdb.retention.time=100y"], further].concat();
        Prometheus::start_with(directory, ip, &[], None, &arguments).await
    }
}
