//! `/cluster`: who leads, and the members with what each publishes.

use serde_json::{Value, json};

use crate::{
    adapters::store::{Leader, Leadership, MemberState, Store},
    decide::time::Moment,
};

/// The page of the prefix `name`; `services`: what a member works on, where that is known.
pub(crate) fn cluster_page(
    name: &str,
    store: &dyn Store,
    now: Moment,
    services: impl Fn(&MemberState) -> Value,
) -> Value {
    let mut members = store.membership().borrow().to_vec();
    members.sort_by(|one, other| one.member.id.cmp(&other.member.id));
    let rows = members.iter().map(|state| {
        let MemberState { member, status, renewed } = state;
        json!({
            "id": member.id,
            "address": member.address,
            "pod": member.pod,
            "version": status.version,
            "ageSeconds": now.since(*renewed).as_secs_f64(),
            "weight": status.weight,
            "cordoned": status.cordoned,
            "load": status.load,
            "services": services(state),
        })
    });
    json!({ "name": name, "leadership": leadership(store), "members": rows.collect::<Vec<_>>() })
}

/// Whether this process leads, and who does.
pub(crate) fn leadership(store: &dyn Store) -> Value {
    match &*store.leadership().borrow() {
        Leadership::Unknown => json!({ "posture": "unknown", "leader": null }),
        Leadership::Follower { leader: None } => json!({ "posture": "following", "leader": null }),
        Leadership::Follower { leader: Some(Leader { member, term }) } => {
            json!({ "posture": "following", "leader": member, "term": term })
        }
        Leadership::Leading { term } => json!({ "posture": "leading", "leader": "self", "term": term }),
    }
}
