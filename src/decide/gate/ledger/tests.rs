//! The ledger's stored form, and its transitions.

use super::*;

fn entry(uid: &str, state: EntryState) -> Entry {
    let fence = |serial| Fence { epoch: Epoch(1), serial };
    Entry {
        uid: uid.into(),
        name: uid.into(),
        fence: fence(0),
        next: fence(1),
        state,
        breaker: "rate".into(),
        reason: one_line("\"too\u{7} many\" errors"),
        break_at: Timestamp::from_unix_millis(1_700_000_000_000),
        retry_count: 2,
        desired: 10,
        human: true,
        spare: Some(10_000),
        bad_before: Some(1000),
        set_backs: 3,
    }
}

fn ledger(entries: &[Entry]) -> Ledger {
    let mut ledger = Ledger::begin("prefix", Epoch(1));
    entries.iter().for_each(|entry| ledger.reserve(entry.clone()));
    ledger
}

#[test]
fn a_ledger_round_trips_and_ignores_unknown_members() {
    let ledger = ledger(&[entry("a", EntryState::Reserved), entry("b", EntryState::Paused)]);
    let bytes = ledger.encode().unwrap();
    assert_eq!(Ledger::decode(&bytes, "prefix").unwrap(), ledger);
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    value["later"] = 7.into();
    assert_eq!(Ledger::decode(value.to_string().as_bytes(), "prefix").unwrap(), ledger);
}

#[test]
fn another_schema_another_owner_and_no_ledger_are_told_apart() {
    let mut other = Ledger::begin("prefix", Epoch(1));
    let foreign = Ledger::decode(&other.encode().unwrap(), "else").unwrap_err();
    assert!(matches!(foreign, LedgerError::ForeignLedger { .. }), "{foreign}");
    other.schema = 2;
    let newer = Ledger::decode(&other.encode().unwrap(), "prefix").unwrap_err();
    assert!(matches!(newer, LedgerError::UnknownSchema(2)), "{newer}");
    let rubbish = Ledger::decode(b"{}", "prefix").unwrap_err();
    assert!(matches!(rubbish, LedgerError::DecodeLedger { .. }), "{rubbish}");
}

#[test]
fn an_attempt_moves_an_entry_only_from_where_it_can_have_been() {
    let mut ledger = ledger(&[entry("a", EntryState::Reserved), entry("b", EntryState::Withheld)]);
    ledger.outcome(&"b".into(), ActionOutcome::Refused);
    assert_eq!(ledger.entries["b"].state, EntryState::Withheld);
    ledger.outcome(&"a".into(), ActionOutcome::Unknown);
    assert_eq!(ledger.entries["a"].state, EntryState::Cancelling);
    ledger.outcome(&"a".into(), ActionOutcome::Landed);
    assert_eq!(ledger.entries["a"].state, EntryState::Withheld, "it landed late");
    ledger.paused(&"a".into());
    assert_eq!(ledger.entries["a"].state, EntryState::Withheld, "it was not pausing");
}

#[test]
fn an_admitted_pod_is_kept_in_returned_and_a_deleted_one_is_not() {
    let mut ledger = ledger(&[entry("a", EntryState::Withheld), entry("b", EntryState::Withheld)]);
    let at = Timestamp::from_unix_millis(5000);
    ledger.release(&"a".into(), Some(at));
    ledger.release(&"b".into(), None);
    assert!(ledger.entries.is_empty());
    assert_eq!(ledger.returned.len(), 1);
    assert_eq!(ledger.returned["a"].retry_count, 2);
    assert_eq!(ledger.returned["a"].spare_until, Some(Timestamp::from_unix_millis(15_000)));
}

#[test]
fn withdrawals_decay_one_by_one_after_the_return() {
    let back = Timestamp::from_unix_millis(0);
    let after = |secs| Ledger::decayed(3, back, back + Duration::from_secs(secs), Duration::from_secs(10));
    assert_eq!([after(0), after(3599), after(3600), after(7200), after(360_000)], [3, 3, 2, 1, 0]);
    let long = Ledger::decayed(3, back, back + Duration::from_secs(7200), Duration::from_secs(720));
    assert_eq!(long, 2, "ten periods, when they are longer than an hour");
}

#[test]
fn the_size_is_never_understated() {
    let mut ledger = ledger(&[]);
    for n in 0..200 {
        let mut entry = entry(&format!("\"{n}\""), EntryState::Cancelling);
        entry.next.serial = u64::MAX;
        ledger.reserve(entry);
    }
    for n in 0..100 {
        let admitted = Timestamp::from_unix_millis(i64::MAX / 2);
        ledger.release(&format!("\"{n}\"").into(), Some(admitted));
    }
    ledger.kills = vec![Timestamp::from_unix_millis(i64::MAX); 50];
    assert!(ledger.size() >= ledger.encode().unwrap().len());
}
