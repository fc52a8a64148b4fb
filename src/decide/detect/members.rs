//! Matches the ensemble's members to the pods that another source lists.
//!
//! In a fleet on Kubernetes the API server lists the pods; a keepalive only claims an id and an address. A wrong match
//! would let one pod's silence cut another, so only unambiguous ones count: an address that no other pod may use, a name
//! together with a namespace, and no keepalive from before the pod's creation (addresses and a `StatefulSet`'s names
//! are reused).
//!
//! A pod without a member is unknown, not silent: it may have no agent. A pod that has reported and whose member the
//! ensemble no longer retains *is* silent; the [`ReportHistory`] records that it reported.

use std::{borrow::Cow, collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{LifeStatus, Observation};
use crate::decide::{ensemble::KnownPod, fleet::Uid, time::Moment};

/// One member of the ensemble.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    /// Its claimed id; by default its pod's name.
    pub id: String,
    /// Its claimed namespace: our agents send none, other clients may.
    pub namespace: Option<String>,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Time since its last keepalive.
    pub age: Duration,
    /// By its keepalives.
    pub status: LifeStatus,
    /// JSON text, parsed only when it is matched.
    pub payload: Box<str>,
}

/// The identifying members of a keepalive. `namespace` is not ours, so it may have any type.
#[derive(Deserialize)]
struct KeepaliveClaims<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    ip: Ipv4Addr,
    #[serde(default)]
    namespace: Value,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl MemberRow {
    /// Parses a record of the ensemble.
    #[must_use]
    pub fn read(record: &KnownPod<'_>) -> Option<Self> {
        let claims: KeepaliveClaims<'_> = serde_json::from_slice(record.text).ok()?;
        Some(Self {
            id: claims.id.into_owned(),
            namespace: claims.namespace.as_str().filter(|name| !name.is_empty()).map(str::to_owned),
            address: claims.ip,
            age: record.age,
            status: record.status,
            payload: claims.payload.get().into(),
        })
    }
}

/// One pod of the fleet, as listed by its source.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedPod {
    /// Identity, for example of Kubernetes.
    pub uid: Uid,
    /// The pod's name.
    pub name: String,
    /// Its IPv4 address, once assigned.
    pub address: Option<Ipv4Addr>,
    /// Whether the address is its node's (`hostNetwork`), so that other pods may use it.
    pub shares_address: bool,
    /// Time since its creation.
    pub age: Duration,
    /// Whether it has no traffic now.
    pub withheld: bool,
}

/// All members at one moment, indexed by address and by id; shared by all fleets.
#[derive(Clone, Debug, Default)]
pub struct Members {
    rows: Vec<MemberRow>,
    by_address: HashMap<Ipv4Addr, Vec<usize>>,
    by_name: HashMap<String, Vec<usize>>,
}

/// The result of [`Members::join`].
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// One per pod, in their order.
    pub observations: Vec<Observation>,
    /// Members that match none of the pods.
    pub strangers: usize,
}

/// The last report of each pod of one fleet; outlasts the ensemble's retention of expired pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportHistory {
    last: HashMap<Uid, Moment>,
}

impl Members {
    /// Builds the indices.
    #[must_use]
    pub fn new(rows: Vec<MemberRow>) -> Self {
        let mut members = Self { rows, ..Self::default() };
        for (place, row) in members.rows.iter().enumerate() {
            members.by_address.entry(row.address).or_default().push(place);
            members.by_name.entry(row.id.clone()).or_default().push(place);
        }
        members
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Observations of one fleet's pods, all in `namespace`, each with its member's data; updates `report_history`.
    #[must_use]
    pub fn join(
        &self,
        namespace: &str,
        pods: &[ListedPod],
        now: Moment,
        report_history: &mut ReportHistory,
    ) -> Joined {
        let mut pods_per_address: HashMap<Ipv4Addr, usize> = HashMap::new();
        for address in pods.iter().filter_map(|pod| pod.address) {
            *pods_per_address.entry(address).or_default() += 1;
        }
        let (mut last, mut observations) = (HashMap::new(), Vec::with_capacity(pods.len()));
        let mut found = 0;
        for pod in pods {
            let alone = pod.address.is_none_or(|address| pods_per_address.get(&address) == Some(&1));
            let member = self.of(namespace, pod, alone && !pod.shares_address);
            found += usize::from(member.is_some());
            let silence = match member {
                // After `down`, no keepalive is expected.
                Some(member) if member.status == LifeStatus::Down => None,
                Some(member) => Some(member.age),
                None => report_history.last.get(&pod.uid).map(|last| now.since(*last)),
            };
            let member = member.filter(|member| member.status != LifeStatus::Down);
            observations.push(observe(pod, member, silence));
            let reported = |silence| Moment::after_origin(now.since_origin().saturating_sub(silence));
            last.extend(silence.map(|silence| (pod.uid.clone(), reported(silence))));
        }
        report_history.last = last;
        Joined { observations, strangers: self.rows.len() - found }
    }

    /// The pod's member: the match of the highest certainty, then of the youngest keepalive.
    fn of(&self, namespace: &str, pod: &ListedPod, has_own_address: bool) -> Option<&MemberRow> {
        let at = pod.address.and_then(|address| self.by_address.get(&address));
        let named = self.by_name.get(&pod.name);
        let candidates = at.into_iter().chain(named).flatten().filter_map(|place| self.rows.get(*place));
        candidates
            .filter_map(|row| Some((certainty(namespace, pod, has_own_address, row)?, row)))
            .min_by_key(|(certainty, row)| (*certainty, row.age))
            .map(|(_, row)| row)
    }
}

/// Observations of a fleet without keepalives, or while none are received; no pod counts as silent.
#[must_use]
pub fn without_keepalives(pods: &[ListedPod]) -> Vec<Observation> {
    pods.iter().map(|pod| observe(pod, None, None)).collect()
}

/// Certainty of a match; the least is the most certain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    AddressAndName,
    Address,
    NamespaceAndName,
}

fn certainty(
    namespace: &str,
    pod: &ListedPod,
    has_own_address: bool,
    member: &MemberRow,
) -> Option<Certainty> {
    let elsewhere = member.namespace.as_deref().is_some_and(|claimed| claimed != namespace);
    if elsewhere || member.age > pod.age {
        return None;
    }
    match (pod.address == Some(member.address), pod.name == member.id) {
        (true, true) => Some(Certainty::AddressAndName),
        (true, false) if has_own_address => Some(Certainty::Address),
        (false, true) if member.namespace.is_some() => Some(Certainty::NamespaceAndName),
        _ => None,
    }
}

fn observe(pod: &ListedPod, member: Option<&MemberRow>, silence: Option<Duration>) -> Observation {
    let status = match (member, silence) {
        (Some(member), _) => member.status,
        // No longer retained by the ensemble.
        (None, Some(_)) => LifeStatus::Expired,
        // Listed: detectors with other inputs may judge it.
        (None, None) => LifeStatus::Live,
    };
    // An unreadable payload (such as a number out of range) is an error for a rule, not "no data".
    let read = |member: &MemberRow| {
        serde_json::from_str(&member.payload).unwrap_or_else(|_| Value::from("unreadable"))
    };
    Observation {
        uid: pod.uid.clone(),
        id: pod.name.clone(),
        age: silence.unwrap_or_default(),
        status,
        heard: silence.is_some(),
        withheld: pod.withheld,
        payload: Arc::new(member.map(read).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decide::detect::{Good, PayloadRule, SilenceRule, payload};
    use crate::decide::verdict::Judgement;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(number: u8) -> ListedPod {
        ListedPod {
            uid: format!("uid-{number}").into(),
            name: format!("web-{number}"),
            address: Some(Ipv4Addr::new(10, 0, 0, number)),
            shares_address: false,
            age: SECOND * 1000,
            withheld: false,
        }
    }

    fn member(number: u8) -> MemberRow {
        MemberRow {
            id: format!("web-{number}"),
            namespace: None,
            address: Ipv4Addr::new(10, 0, 0, number),
            age: SECOND * u32::from(number),
            status: LifeStatus::Live,
            payload: json!({ "number": number }).to_string().into(),
        }
    }

    /// The number in each pod's matched payload, and the count of unmatched members.
    fn numbers(members: Vec<MemberRow>, pods: &[ListedPod]) -> (Vec<Option<u64>>, usize) {
        let now = Moment::after_origin(SECOND * 5000);
        let Joined { observations, strangers } =
            Members::new(members).join("shop", pods, now, &mut ReportHistory::default());
        let number = |observation: &Observation| {
            let number = observation.payload.pointer("/number").and_then(Value::as_u64);
            assert_eq!(observation.heard, number.is_some());
            number
        };
        (observations.iter().map(number).collect(), strangers)
    }

    #[test]
    fn each_pod_gets_its_own_member_whatever_their_order_and_the_rest_is_counted() {
        let members = vec![member(3), member(1), member(9)];
        assert_eq!(numbers(members, &[pod(1), pod(2), pod(3)]), (vec![Some(1), None, Some(3)], 1));
    }

    #[test]
    fn an_observation_is_the_pod_as_it_is_listed_with_what_its_member_says() {
        let pods = [ListedPod { withheld: true, ..pod(7) }];
        let now = Moment::after_origin(SECOND * 5000);
        let joined = Members::new(vec![member(7)]).join("shop", &pods, now, &mut ReportHistory::default());
        let expected = Observation {
            uid: "uid-7".into(),
            id: "web-7".into(),
            age: SECOND * 7,
            status: LifeStatus::Live,
            heard: true,
            withheld: true,
            payload: Arc::new(json!({"number": 7})),
        };
        assert_eq!(joined.observations, [expected]);
    }

    #[test]
    fn an_address_of_its_own_is_enough_and_one_that_others_share_is_not() {
        let renamed = MemberRow { id: "billing".into(), ..member(1) };
        assert_eq!(numbers(vec![renamed.clone()], &[pod(1)]), (vec![Some(1)], 0));
        let on_its_node = ListedPod { shares_address: true, ..pod(1) };
        assert_eq!(numbers(vec![renamed.clone()], std::slice::from_ref(&on_its_node)), (vec![None], 1));
        let ended = ListedPod { address: pod(1).address, ..pod(2) };
        assert_eq!(numbers(vec![renamed], &[pod(1), ended]), (vec![None, None], 1));
        // The name is unambiguous.
        assert_eq!(numbers(vec![member(1)], &[on_its_node, pod(2)]), (vec![Some(1), None], 0));
    }

    #[test]
    fn a_name_counts_only_in_the_namespace_that_the_member_names() {
        let moved = |namespace: Option<&str>| MemberRow {
            address: Ipv4Addr::new(192, 0, 2, 1),
            namespace: namespace.map(str::to_owned),
            ..member(1)
        };
        assert_eq!(numbers(vec![moved(None)], &[pod(1)]), (vec![None], 1), "a namesake of anywhere");
        assert_eq!(numbers(vec![moved(Some("shop"))], &[pod(1)]), (vec![Some(1)], 0));
        assert_eq!(numbers(vec![moved(Some("bank"))], &[pod(1)]), (vec![None], 1));
        let elsewhere = MemberRow { namespace: Some("bank".into()), ..member(1) };
        assert_eq!(numbers(vec![elsewhere], &[pod(1)]), (vec![None], 1), "even at its address");
        let without_address = ListedPod { address: None, ..pod(1) };
        assert_eq!(numbers(vec![moved(Some("shop"))], &[without_address]), (vec![Some(1)], 0));
    }

    #[test]
    fn a_keepalive_from_before_the_pods_creation_is_another_pods() {
        let reborn = ListedPod { age: SECOND * 6, ..pod(7) };
        assert_eq!(numbers(vec![member(7)], &[reborn]), (vec![None], 1));
        assert_eq!(numbers(vec![member(7)], &[ListedPod { age: SECOND * 7, ..pod(7) }]), (vec![Some(7)], 0));
    }

    #[test]
    fn of_several_members_the_most_certain_counts_and_then_the_youngest_keepalive() {
        let by_name = MemberRow {
            id: "web-9".into(),
            namespace: Some("shop".into()),
            address: Ipv4Addr::new(192, 0, 2, 1),
            ..member(1)
        };
        assert_eq!(numbers(vec![by_name, member(9)], &[pod(9)]), (vec![Some(9)], 1));
        let earlier = MemberRow { status: LifeStatus::Expired, age: SECOND * 90, ..member(2) };
        let latest = MemberRow { payload: json!({"number": 22}).to_string().into(), ..member(2) };
        assert_eq!(numbers(vec![earlier.clone(), latest.clone()], &[pod(2)]), (vec![Some(22)], 1));
        assert_eq!(numbers(vec![latest, earlier], &[pod(2)]), (vec![Some(22)], 1));
    }

    /// By silence, and by a payload rule with `null` and 1 as good values.
    fn judgements(observation: &Observation) -> [Judgement; 2] {
        let rule = PayloadRule { pointer: "/number".into(), good: Good::OneOf(vec![json!(1), json!(null)]) };
        let silence = SilenceRule { after: SECOND * 10 };
        [payload::silence(&silence, observation), payload::bounds(&rule, observation)]
    }

    #[test]
    fn a_pod_that_never_reported_or_sent_down_has_no_data_and_is_live_for_other_detectors() {
        let leaving = MemberRow { status: LifeStatus::Down, age: SECOND * 90, ..member(1) };
        let (now, mut report_history) = (Moment::after_origin(SECOND * 5000), ReportHistory::default());
        let joined = Members::new(vec![leaving]).join("shop", &[pod(1), pod(2)], now, &mut report_history);
        for observation in &joined.observations {
            assert_eq!(judgements(observation), [Judgement::NoData, Judgement::NoData]);
            assert_eq!(observation.status, LifeStatus::Live);
        }
        assert_eq!(joined.strangers, 0);
        assert_eq!(joined.observations, without_keepalives(&[pod(1), pod(2)]), "as without keepalives");
    }

    #[test]
    fn silence_outlasts_the_ensembles_retention_until_the_pod_is_gone() {
        let mut report_history = ReportHistory::default();
        let at = |seconds| Moment::after_origin(SECOND * seconds);
        let mut join = |members: Vec<MemberRow>, pods: &[ListedPod], seconds| {
            Members::new(members).join("shop", pods, at(seconds), &mut report_history).observations
        };
        assert_eq!(judgements(&join(vec![member(1)], &[pod(1)], 100)[0])[0], Judgement::Good);
        let forgotten = join(vec![], &[pod(1)], 900);
        assert_eq!((forgotten[0].age, forgotten[0].status), (SECOND * 801, LifeStatus::Expired));
        let [silent, payload] = judgements(&forgotten[0]);
        assert!(matches!(silent, Judgement::Bad { .. }), "{silent:?}");
        assert_eq!(payload, Judgement::Stale);
        let replaced = ListedPod { uid: "another".into(), age: SECOND, ..pod(1) };
        assert!(!join(vec![], &[replaced], 901)[0].heard);
        assert!(!join(vec![], &[pod(1)], 902)[0].heard, "nothing is kept of pods that are gone");
    }

    #[test]
    fn a_record_is_read_whatever_else_is_in_it() {
        let read = |namespace: Value| {
            let text =
                json!({"app": "a", "id": "web-1", "ip": "10.0.0.1", "key": "blXcB", "namespace": namespace,
                "payload": {"number": 1}, "role": "r", "seq": 3})
                .to_string();
            let record =
                KnownPod { text: text.as_bytes(), status: LifeStatus::Live, age: SECOND, heard: true };
            MemberRow::read(&record).unwrap()
        };
        assert_eq!(read(json!({"odd": 1})), member(1));
        assert_eq!(read(json!("shop")).namespace.as_deref(), Some("shop"));
        let broken = KnownPod { text: b"{", status: LifeStatus::Live, age: SECOND, heard: true };
        assert_eq!(MemberRow::read(&broken), None);
    }
}
