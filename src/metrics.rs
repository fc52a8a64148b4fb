//! The process's metrics: one registry, prefix `kubervisor_`, with which each module registers its own struct.
//!
//! Label values come from fixed lists, never from a pod's name or an error's text. `docs/metrics.md` lists all
//! metrics; `tests/telemetry.rs` compares the list with a running process.

mod exposition;

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Metric, Registry},
};

pub use self::exposition::Exposition;
use crate::{alarms::Alarms, telemetry::lost_lines};

/// The registry; clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry with version, alarms and memory.
    pub fn new(alarms: &Alarms) -> Self {
        let mut registry = Registry::with_prefix("kubervisor");
        registry.register(
            "build",
            "The running program",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(AlarmGauge { alarms: alarms.clone() }));
        registry.register_collector(Box::new(ServiceAlarmGauge { alarms: alarms.clone() }));
        registry.register_collector(Box::new(ResidentMemory));
        registry.register_collector(Box::new(LostLogLines));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Gives access to the registry, for registration.
    pub fn with_registry<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// The exposition text, OpenMetrics.
    ///
    /// # Errors
    /// When a collector fails to encode, which ours never do.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

/// A new metric, registered as `name`.
pub fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Counters with one label, whose values come from a fixed list; clones share them.
#[derive(Clone, Debug)]
pub struct LabelledCounter {
    label: &'static str,
    counters: Family<[(&'static str, &'static str); 1], Counter>,
}

impl LabelledCounter {
    /// Registers them as `name`.
    pub fn register(registry: &mut Registry, name: &str, help: &str, label: &'static str) -> Self {
        Self { label, counters: registered(registry, name, help) }
    }

    /// The counter of this value of the label; one that is new begins with 0.
    pub fn of(&self, value: &'static str) -> Counter {
        self.counters.get_or_create_owned(&[(self.label, value)])
    }
}

/// `kubervisor_alarm{reason}`: 1 while the alarm is up, 0 once it was.
#[derive(Debug)]
struct AlarmGauge {
    alarms: Alarms,
}

impl Collector for AlarmGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge: Family<[(&str, &str); 1], Gauge> = Family::default();
        for change in self.alarms.history() {
            gauge.get_or_create_owned(&[("reason", change.reason.as_str())]).set(0);
        }
        for change in self.alarms.up() {
            gauge.get_or_create_owned(&[("reason", change.reason.as_str())]).set(1);
        }
        let metric =
            encoder.encode_descriptor("alarm", "1 while something needs a human", None, MetricType::Gauge)?;
        gauge.encode(metric)
    }
}

/// `kubervisor_service_alarm{name, namespace, reason}`: 1 for each alarm of a single service that is up.
#[derive(Debug)]
struct ServiceAlarmGauge {
    alarms: Alarms,
}

impl Collector for ServiceAlarmGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge: Family<[(&str, String); 3], Gauge> = Family::default();
        for change in self.alarms.up() {
            let Some((namespace, name)) = change.of.split_once('/') else { continue };
            let reason = ("reason", change.reason.as_str().to_owned());
            let labels = [("name", name.to_owned()), ("namespace", namespace.to_owned()), reason];
            gauge.get_or_create_owned(&labels).set(1);
        }
        let help = "1 while something about this service needs a human";
        let metric = encoder.encode_descriptor("service_alarm", help, None, MetricType::Gauge)?;
        gauge.encode(metric)
    }
}

/// `kubervisor_resident_memory_bytes`, read at each scrape.
#[derive(Debug)]
struct ResidentMemory;

impl Collector for ResidentMemory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(resident_bytes().unwrap_or(0));
        let metric = encoder.encode_descriptor(
            "resident_memory_bytes",
            "Memory of this process that is in RAM",
            None,
            MetricType::Gauge,
        )?;
        gauge.encode(metric)
    }
}

/// `kubervisor_log_lines_lost`.
#[derive(Debug)]
struct LostLogLines;

impl Collector for LostLogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(lost_lines());
        let metric = encoder.encode_descriptor(
            "log_lines_lost",
            "Lines of the log that stderr did not take",
            None,
            MetricType::Counter,
        )?;
        counter.encode(metric)
    }
}

/// This process's resident set, in bytes; `None` where `/proc` is missing.
pub fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, decide::alarm_reason::AlarmReason};

    #[test]
    fn an_alarm_shows_as_one_while_it_is_up_and_zero_afterwards() {
        let alarms = Alarms::new(Clock::start());
        let metrics = Metrics::new(&alarms);
        assert!(!metrics.text().unwrap().contains("kubervisor_alarm{"));
        alarms.raise(AlarmReason::StoreAway, "away");
        assert!(metrics.text().unwrap().contains("kubervisor_alarm{reason=\"store_away\"} 1"));
        alarms.clear(AlarmReason::StoreAway);
        assert!(metrics.text().unwrap().contains("kubervisor_alarm{reason=\"store_away\"} 0"));
    }

    #[test]
    fn the_memory_of_the_process_is_shown_in_bytes() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        let metrics = Metrics::new(&Alarms::new(Clock::start()));
        assert!(metrics.text().unwrap().contains("kubervisor_resident_memory_bytes "));
    }
}
