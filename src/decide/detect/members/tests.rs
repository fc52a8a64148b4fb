//! Members and pods are joined by address, name and nonce.

use serde_json::json;

use super::*;
use crate::decide::detect::{Good, PayloadRule, SilenceRule, payload};
use crate::decide::verdict::{Judgement, NoVerdict};

const SECOND: Duration = Duration::from_secs(1);

fn pod(number: u8) -> ListedPod {
    ListedPod {
        uid: format!("uid-{number}").into(),
        name: format!("web-{number}"),
        address: Some(Ipv4Addr::new(10, 0, 0, number)),
        shares_address: false,
        age: SECOND * 1000,
        reusable_name: false,
        withheld: false,
    }
}

fn member(number: u8) -> MemberRow {
    MemberRow {
        id: format!("web-{number}"),
        namespace: None,
        address: Ipv4Addr::new(10, 0, 0, number),
        age: SECOND * u32::from(number),
        silence: SECOND * u32::from(number),
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
fn what_a_pod_missed_in_our_own_pause_is_no_silence_of_its_own() {
    let paused = MemberRow { age: SECOND * 90, silence: SECOND * 2, ..member(1) };
    let mut history = ReportHistory::default();
    let now = Moment::after_origin(SECOND * 5000);
    let joined = Members::new(vec![paused]).join("shop", &[pod(1)], now, &mut history);
    let rule = SilenceRule { after: SECOND * 10 };
    assert_eq!(payload::silence(&rule, &joined.observations[0]), Judgement::Good);
    let newer = [ListedPod { age: SECOND * 60, ..pod(1) }];
    let joined = Members::new(vec![MemberRow { age: SECOND * 90, silence: SECOND * 2, ..member(1) }]).join(
        "shop",
        &newer,
        now,
        &mut ReportHistory::default(),
    );
    assert_eq!(joined.strangers, 1, "a keepalive from before the pod's creation is another's, paused or not");
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
        name_age: None,
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
    let earlier =
        MemberRow { status: LifeStatus::Expired, age: SECOND * 90, silence: SECOND * 90, ..member(2) };
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
    let leaving = MemberRow { status: LifeStatus::Down, age: SECOND * 90, silence: SECOND * 90, ..member(1) };
    let (now, mut report_history) = (Moment::after_origin(SECOND * 5000), ReportHistory::default());
    let joined = Members::new(vec![leaving]).join("shop", &[pod(1), pod(2)], now, &mut report_history);
    for observation in &joined.observations {
        assert_eq!(
            judgements(observation),
            [NoVerdict::NoKeepalive, NoVerdict::NoKeepalive].map(Judgement::None)
        );
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
    assert_eq!(payload, Judgement::None(NoVerdict::Expired));
    let replaced = ListedPod { uid: "another".into(), age: SECOND, ..pod(1) };
    assert!(!join(vec![], &[replaced], 901)[0].heard);
    assert!(!join(vec![], &[pod(1)], 902)[0].heard, "nothing is kept of pods that are gone");
}
