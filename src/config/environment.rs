//! Parses variables and collects all complaints, so that a user can correct them at once.
//!
//! A complaint names the variable, the value and what to write. An empty variable counts as unset.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Display,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::address::serving_or_off;
use crate::exit::Exit;

/// Variables by name; a pure value, which tests make from pairs.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl Environment {
    /// The process's own variables.
    ///
    /// # Errors
    /// [`Exit::Usage`] when one of ours is not UTF-8.
    pub fn of_process() -> Result<Self, Exit> {
        let ours = |name: &str| name.starts_with("KONTROL_") || name.starts_with("KUBERVISOR_");
        let read = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            match value.into_string() {
                Ok(value) => Some(Ok((name, value))),
                Err(_) if ours(&name) => {
                    Some(Err(Exit::Usage(format!("{name}: the value is not UTF-8; write plain text"))))
                }
                Err(_) => None,
            }
        };
        std::env::vars_os().filter_map(read).collect()
    }

    /// The value of `name`; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of `name` even when it is empty.
    pub fn get_even_empty(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Sets `name`: a flag wins over the variable that it stands for.
    pub fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Sets `name` where nobody has: a default.
    pub fn set_if_unset(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { values: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

/// An environment being read, with the complaints so far.
pub(super) struct Reader<'a> {
    pub(super) env: &'a Environment,
    complaints: Vec<String>,
}

/// Variables that may have several lines.
const MULTI_LINE: [&str; 4] =
    ["KONTROL_CALLBACK", "KONTROL_LABELS", "KONTROL_ANNOTATIONS", "KUBERVISOR_ENDPOINTS_COMMAND"];

/// Whether quotes enclose the whole text, and there are no others of their kind in it.
fn is_quoted(text: &str) -> bool {
    ['"', '\''].iter().any(|&quote| {
        text.len() > 1 && text.starts_with(quote) && text.ends_with(quote) && text.matches(quote).count() == 2
    })
}

/// Upper bound of all times, in seconds: a day.
const LONGEST: f64 = 86_400.0;

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Environment) -> Self {
        Self { env, complaints: Vec::new() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.env.get(name)
    }

    /// Complains of the texts that no setting can mean: blanks or control characters around or inside it, which a file
    /// with CRLF line ends leaves, and quotes around it, which the readers of environment files hand on.
    pub(super) fn check_texts(&mut self, names: impl Iterator<Item = &'static str>) {
        for name in names {
            let Some(value) = self.get(name) else { continue };
            let lines = MULTI_LINE.contains(&name);
            let text = if lines { value.trim_matches('\n') } else { value };
            let odd = |c: char| (c.is_control() && !(lines && matches!(c, '\n' | '\t'))) || c == '\u{feff}';
            if text.contains(odd) {
                self.complain(
                    name,
                    "has a control character; if the file that sets it has CRLF line ends, convert them, else remove it",
                );
            } else if !lines && text.trim() != text {
                self.complain(name, "has blanks around it; remove them");
            } else if is_quoted(text) {
                self.complain(
                    name,
                    "has quotes around it, which are a part of the value for `docker --env-file` and others; remove them",
                );
            }
        }
    }

    /// Notes that `name` cannot be used as it is.
    pub(super) fn complain(&mut self, name: &str, what: impl Display) {
        let value = self.env.get_even_empty(name).map(|value| {
            let short: String = value.chars().take(80).collect();
            format!("={short:?}{}", if short.len() < value.len() { "..." } else { "" })
        });
        let complaint = format!("{name}{}: {what}", value.unwrap_or_default());
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// No value, with a complaint.
    pub(super) fn refuse<T>(&mut self, name: &str, what: impl Display) -> Option<T> {
        self.complain(name, what);
        None
    }

    /// The value parsed by `parse`, or `None` with a complaint that ends in `expected`.
    pub(super) fn parse<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        parse(self.get(name)?.trim()).or_else(|| self.refuse(name, expected))
    }

    /// A number of seconds, fractions allowed, at least `least`.
    pub(super) fn seconds(&mut self, name: &str, default: f64, least: f64) -> Duration {
        let example = (default * 1000.0).round() / 1000.0;
        let expected = format!(
            "not a number of seconds from {least} to {LONGEST}; write a plain number, for example {name}={example}"
        );
        let within = |value: &f64| (least..=LONGEST).contains(value);
        let value = self.parse(name, &expected, |text| text.parse::<f64>().ok().filter(within));
        Duration::from_secs_f64(value.unwrap_or(default))
    }

    /// A whole number of at least 1.
    pub(super) fn count(&mut self, name: &str) -> Option<u32> {
        let expected = format!("not a whole number from 1 to {}", u32::MAX);
        self.parse(name, &expected, |text| text.parse().ok().filter(|&count| count > 0))
    }

    pub(super) fn port(&mut self, name: &str) -> Option<u16> {
        let value = self.get(name)?;
        let port = value.trim().parse().ok().filter(|&port| port > 0);
        let what = if value.starts_with("tcp://") {
            "this is what Kubernetes sets for a Service of that name, not a port; \
             set the port in the manifest, or enableServiceLinks: false"
        } else {
            &format!("not a TCP port from 1 to 65535; write for example {name}=8000")
        };
        port.or_else(|| self.refuse(name, what))
    }

    pub(super) fn ipv4(&mut self, name: &str) -> Option<Ipv4Addr> {
        let value = self.get(name)?.trim();
        let what = if value.parse::<std::net::Ipv6Addr>().is_ok() {
            "IPv6 is not supported: keys are made from IPv4 addresses; write an IPv4 address"
        } else {
            &format!("not an IPv4 address; write for example {name}=172.16.123.1")
        };
        value.parse().ok().or_else(|| self.refuse(name, what))
    }

    /// `true` or `false`, and the usual other ways to write them.
    pub(super) fn switch(&mut self, name: &str) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        };
        self.parse(name, "neither true nor false; write one of them", parse).unwrap_or(false)
    }

    /// An address to serve on; `off` is none, `:port` is that port on all addresses.
    pub(super) fn serve_on(&mut self, name: &str, default: SocketAddr) -> Option<SocketAddr> {
        let expected = format!("not an address; write IP:PORT, :PORT or off, for example {name}={default}");
        self.parse(name, &expected, serving_or_off).unwrap_or(Some(default))
    }

    /// A comma-separated list; blanks around the entries and empty entries do not count.
    pub(super) fn list(&self, name: &str) -> Vec<&'a str> {
        let entries = self.get(name).unwrap_or_default().split(',');
        entries.map(str::trim).filter(|entry| !entry.is_empty()).collect()
    }

    /// CIDRs, or single addresses.
    pub(super) fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let entries = self.list(name).into_iter();
        let network = |entry: &str| {
            let single = || entry.parse::<std::net::IpAddr>().ok().map(IpNet::from);
            let wrong = || format!("{entry:?} is no CIDR; write a list such as 10.0.0.0/8,192.168.1.7");
            entry.parse().ok().or_else(single).or_else(|| self.refuse(name, wrong()))
        };
        entries.filter_map(network).collect()
    }

    /// A JSON object of strings, such as labels.
    pub(super) fn string_map(&mut self, name: &str) -> Option<BTreeMap<String, String>> {
        let value = self.get(name)?;
        serde_json::from_str(value).map_or_else(
            |error| {
                let example = r#"{"app":"shop","role":"web"}"#;
                self.refuse(
                    name,
                    format!("not a JSON object of strings ({error}); write for example {example}"),
                )
            },
            Some,
        )
    }

    /// The value that was read, unless there were complaints: then all of them.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Exit> {
        match (value, self.complaints.as_slice()) {
            (Some(value), []) => Ok(value),
            (_, complaints) => {
                Err(Exit::Usage(format!("wrong configuration\n  {}", complaints.join("\n  "))))
            }
        }
    }
}
