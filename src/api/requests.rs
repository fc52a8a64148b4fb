//! A person's requests: the annotation `kubervisor/requests` of a KubervisorService, one JSON object a line.
//!
//! Lines, because an admission policy can then compare the new ones with the user who writes them. Each request ends by
//! itself, and their number is bounded, so that a forgotten one never becomes a lasting rule. The gate treats them as
//! verdicts: floor, panic and dry run win.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::decide::{
    fleet::{Fleet, Uid},
    gate::ledger::one_line,
    time::Timestamp,
    verdict::{Call, Opinion, Source, SourceKind},
};

/// The source's name of requests, in labels, Events and explanations.
pub const PERSON: &str = crate::decide::gate::PERSON;
/// The most requests at a time.
pub const MOST: usize = 32;
/// The most bytes of the annotation.
pub const LIMIT: usize = 16 * 1024;
/// The longest time that a request holds.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest name of a person, in characters.
const LONGEST_NAME: usize = 253;
/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 200;
/// How far the clock of the person's machine may be ahead.
const AHEAD: Duration = Duration::from_secs(300);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestVerb {
    /// Withhold a pod.
    Withhold,
    /// Give a pod its traffic, and withhold it for no breaker's sake.
    Admit,
    /// Freeze the resource.
    Pause,
    /// End a pause.
    Resume,
}

/// One request, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked for.
    #[serde(rename = "do")]
    pub verb: RequestVerb,
    /// The pod's name; none for the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's UID, so that a later pod of the name is not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When it was asked for.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub at: Timestamp,
    /// When it ends.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub until: Timestamp,
    /// Who asks, as that person states it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The requests of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonRequests {
    /// Those that are valid, in the order of the lines; some may have ended.
    pub list: Vec<Request>,
    /// Why other lines are not.
    pub refused: Vec<String>,
    /// An admission policy checks the names: they are not marked as stated.
    pub names_checked: bool,
}

impl PersonRequests {
    /// Reads the annotation. Lines that have ended before `now` are valid and without effect.
    pub fn parse(text: &str, now: Timestamp, names_checked: bool) -> Self {
        let mut requests = Self { names_checked, ..Self::default() };
        if text.len() > LIMIT {
            requests
                .refused
                .push(format!("the annotation has {} bytes, at most {LIMIT} are read", text.len()));
            return requests;
        }
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if requests.list.len() >= MOST {
                requests
                    .refused
                    .push(format!("there are more than {MOST} requests; the later ones do not count"));
                break;
            }
            let read = serde_json::from_str::<Request>(line).map_err(|error| error.to_string());
            match read.and_then(|request| request.check(now).map(|()| request)) {
                Ok(request) => requests.list.push(request),
                Err(why) => requests.refused.push(format!("line {}: {}", index + 1, one_line(&why))),
            }
        }
        requests
    }

    /// The annotation's text.
    pub fn encode(list: &[Request]) -> String {
        let lines = list.iter().filter_map(|request| serde_json::to_string(request).ok());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The requests about pods as a source of the gate.
    pub fn source(&self, now: Timestamp, fleet: &Fleet) -> Option<Source> {
        let opinions: Vec<(Uid, Opinion)> = fleet
            .pods()
            .iter()
            .filter_map(|pod| {
                let asked = self.list.iter().rev().find(|request| {
                    let same = request.uid.as_deref().is_none_or(|uid| uid == pod.uid.as_str());
                    request.until > now && same && request.pod.as_deref() == Some(&*pod.name)
                })?;
                let call = if asked.verb == RequestVerb::Admit { Call::Admit } else { Call::Withhold };
                let reason = self.describe(asked);
                Some((pod.uid.clone(), Opinion::Requested { call, reason, until: asked.until }))
            })
            .collect();
        (!opinions.is_empty()).then(|| Source::new(PERSON, SourceKind::Person, now, opinions))
    }

    /// The pause or its end, whichever was asked for last.
    pub fn pause(&self, now: Timestamp) -> Option<&Request> {
        let of_resource =
            |request: &&Request| matches!(request.verb, RequestVerb::Pause | RequestVerb::Resume);
        self.list.iter().rev().filter(|request| request.until > now).find(of_resource)
    }

    /// Who asks, until when and why.
    pub fn describe(&self, request: &Request) -> String {
        let stated = if self.names_checked { "" } else { " (as stated)" };
        let reason = if request.reason.is_empty() { "no reason stated" } else { &request.reason };
        one_line(&format!("asked for by {}{stated} until {}: {reason}", request.by, request.until))
    }
}

impl Request {
    fn check(&self, now: Timestamp) -> Result<(), String> {
        let of_pod = matches!(self.verb, RequestVerb::Withhold | RequestVerb::Admit);
        let name_fits = self.pod.as_deref().is_none_or(is_name);
        let rules = [
            (self.pod.is_some() != of_pod, "withhold and admit name a pod, pause and resume do not"),
            (!name_fits, "pod is no name of a pod"),
            (self.by.trim().is_empty(), "by is empty: who asks?"),
            (self.by.chars().count() > LONGEST_NAME, "by has more than 253 characters"),
            (self.reason.chars().count() > LONGEST_REASON, "reason has more than 200 characters"),
            (self.until <= self.at, "until is not after at"),
            (self.until.since(self.at) > LONGEST, "until is more than 24 h after at"),
            (self.at.since(now) > AHEAD, "at is in the future by more than 5 min"),
        ];
        let broken = rules.into_iter().find_map(|(broken, why)| broken.then_some(why));
        broken.map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(fits)
}

fn write_time<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

fn read_time<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    let at: jiff::Timestamp = text.parse().map_err(|_| {
        D::Error::custom(format!("{text:?} is no time: write RFC 3339, as in 2026-01-02T03:04:05Z"))
    })?;
    Ok(Timestamp::from_unix_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fleet::{Epoch, Fence, PodView};

    const NOW: Timestamp = Timestamp::from_unix_millis(1_000_000_000);

    fn request(verb: RequestVerb, pod: Option<&str>, seconds: u64) -> Request {
        Request {
            verb,
            pod: pod.map(str::to_owned),
            uid: None,
            at: NOW,
            until: NOW + Duration::from_secs(seconds),
            by: "ann".to_owned(),
            reason: "deploy".to_owned(),
        }
    }

    fn refusal(request: &Request) -> String {
        PersonRequests::parse(&PersonRequests::encode(std::slice::from_ref(request)), NOW, false)
            .refused
            .join("; ")
    }

    #[test]
    fn what_is_written_is_read_again_and_named_as_stated_unless_names_are_checked() {
        let asked = request(RequestVerb::Withhold, Some("web-1"), 60);
        let text = PersonRequests::encode(&[asked.clone(), request(RequestVerb::Pause, None, 60)]);
        let read = PersonRequests::parse(&text, NOW, false);
        assert_eq!((read.list.len(), read.refused.as_slice()), (2, [].as_slice()));
        assert_eq!(read.list[0], asked);
        assert_eq!(
            read.describe(&asked),
            "asked for by ann (as stated) until 1970-01-12T13:47:40.000Z: deploy"
        );
        let checked = PersonRequests { names_checked: true, ..read };
        assert!(!checked.describe(&asked).contains("as stated"));
    }

    #[test]
    fn a_request_that_breaks_a_bound_is_refused_with_the_bound() {
        let good = request(RequestVerb::Admit, Some("web-1"), 60);
        let cases = [
            (Request { pod: None, ..good.clone() }, "name a pod"),
            (Request { verb: RequestVerb::Pause, ..good.clone() }, "name a pod"),
            (Request { pod: Some("../x".into()), ..good.clone() }, "no name of a pod"),
            (Request { by: " ".into(), ..good.clone() }, "who asks"),
            (Request { by: "x".repeat(254), ..good.clone() }, "253"),
            (Request { reason: "x".repeat(201), ..good.clone() }, "200"),
            (Request { until: NOW, ..good.clone() }, "not after at"),
            (Request { until: NOW + Duration::from_secs(86_401), ..good.clone() }, "24 h"),
            (
                Request {
                    at: NOW + Duration::from_secs(400),
                    until: NOW + Duration::from_secs(500),
                    ..good.clone()
                },
                "future",
            ),
        ];
        for (request, words) in cases {
            assert!(refusal(&request).contains(words), "{request:?}: {}", refusal(&request));
        }
        assert_eq!(refusal(&good), "");
    }

    #[test]
    fn bad_lines_do_not_spoil_the_others_and_no_member_stands_twice() {
        let good = PersonRequests::encode(&[request(RequestVerb::Pause, None, 60)]);
        let twice = good.replace(r#""by":"ann""#, r#""by":"ann","by":"bob""#);
        let nested = good.replace(r#""by":"ann""#, r#""x":{"by":"ann"},"by":"bob""#);
        let text = format!("nonsense\n{twice}\n{nested}\n\n{good}");
        let read = PersonRequests::parse(&text, NOW, false);
        assert_eq!((read.list.len(), read.refused.len()), (1, 3), "{read:?}");
        assert!(read.refused[1].contains("line 2") && read.refused[1].contains("duplicate"), "{read:?}");
    }

    #[test]
    fn number_and_size_are_bounded() {
        let many: Vec<Request> = (0..40).map(|_| request(RequestVerb::Pause, None, 60)).collect();
        let read = PersonRequests::parse(&PersonRequests::encode(&many), NOW, false);
        assert_eq!((read.list.len(), read.refused.len()), (MOST, 1));
        let read = PersonRequests::parse(&"x".repeat(LIMIT + 1), NOW, false);
        assert!(read.list.is_empty() && read.refused[0].contains("bytes"), "{read:?}");
    }

    #[test]
    fn the_latest_request_about_this_very_pod_counts_until_it_ends() {
        let pod =
            |name: &str| PodView::serving(format!("u-{name}"), name, Fence { epoch: Epoch(1), serial: 0 });
        let fleet = Fleet::new(2, vec![pod("web-1"), pod("web-2")]);
        let list = vec![
            request(RequestVerb::Withhold, Some("web-1"), 60),
            request(RequestVerb::Admit, Some("web-1"), 30),
            Request { uid: Some("another".into()), ..request(RequestVerb::Withhold, Some("web-2"), 60) },
        ];
        let requests = PersonRequests { list, ..PersonRequests::default() };
        let calls = |seconds: u64| {
            let source = requests.source(NOW + Duration::from_secs(seconds), &fleet);
            let opinions = source.map(|source| source.opinions().to_vec()).unwrap_or_default();
            let calls = opinions.into_iter().map(|(uid, opinion)| match opinion {
                Opinion::Requested { call, .. } => (uid.to_string(), call),
                other => panic!("{other:?}"),
            });
            calls.collect::<Vec<_>>()
        };
        assert_eq!(calls(0), [("u-web-1".to_owned(), Call::Admit)]);
        assert_eq!(calls(30), [("u-web-1".to_owned(), Call::Withhold)]);
        assert_eq!(calls(60), []);
    }
}
