//! Every alarm that this program raises, once: its name in metrics and pages, and what it means.
//!
//! The names are public (`kubervisor_alarm{reason}`, `/services`, dashboards); `docs/metrics.md` has the same table,
//! which `cargo test --test telemetry` compares with this one.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($variant:ident, $name:literal, $help:literal;)+) => {
        /// Why an alarm is raised.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AlarmReason {
            $(#[doc = $help] $variant,)+
        }

        impl AlarmReason {
            /// All reasons in order of their names.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label of the metric and the name in pages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means and what stays in force meanwhile, in one sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

reasons! {
    BelowFloor, "below_floor", "Fewer pods serve than the floor requires; withheld pods are given their traffic back, the best first.";
    CallbackFailed, "callback_failed", "The last run of the callback failed; its earlier state and verdicts stay in force, and it is tried again.";
    DetectorFailing, "detector_failing", "A breaker gets no usable answer from its source; its pods have no verdict until it does.";
    EndpointsCommand, "endpoints_command", "The command after a write of the endpoints file failed; it is tried again.";
    EndpointsEmpty, "endpoints_empty", "The list would be empty although not every pod sent `down`; the endpoints file keeps the last one.";
    EndpointsWrite, "endpoints_write", "The endpoints file cannot be written; the write is tried again.";
    FloorReached, "floor_reached", "Pods are bad and still serve, because the floor allows no more to be withheld.";
    ForeignNo, "foreign_no", "Pods are withheld, but not by this controller; their labels stay as they are.";
    GateFrozen, "gate_frozen", "No decision can be made or stored; traffic stays as it is.";
    KeepaliveRefused, "keepalive_refused", "Keepalives are refused; the message names the reason, the pod and the sender.";
    KeyCollision, "key_collision", "Two pods claim one key or one id; the newcomer is refused while the other one is alive.";
    LedgerFull, "ledger_full", "Pods are bad and still serve, because the ledger has reached its size limit.";
    NamespaceUnseen, "namespace_unseen", "The watches of one of the given namespaces fail; nothing is done there, the other namespaces do not wait for it.";
    NoData, "no_data", "Too few pods have a verdict from a breaker; `onNoData` decides about the pods that it withheld.";
    NotListed, "not_listed", "Ready pods are in no ready endpoint of the Service; they count as serving for no withdrawal.";
    OddPayload, "odd_payload", "A payload holds a value that JSON has not, or a number beyond a double; it counts as no data, and the pod lives.";
    OddSwitch, "odd_switch", "Pods have a traffic label that is neither `yes`, `no` nor `pause`; correct it.";
    OnePerNode, "one_per_node", "Each pod is the only one of its node, and the last one of a node is kept (`keepOnePerNode`): none can be withheld.";
    Panic, "panic", "More pods look bad than `panicThreshold` allows: none is withheld, and withheld ones get their traffic back.";
    PolicyRefused, "policy_refused", "The changed policy file is invalid; the previous policy stays in force.";
    ReturnRefused, "return_refused", "Pods get no traffic, because the API server refuses the write that gives it to them; it is tried again every few seconds.";
    RosterUnusable, "roster_unusable", "The stored roster cannot be read; the endpoints file stays as it is.";
    SetBack, "set_back", "Another manager sets pods back to `yes` soon after each withdrawal; they are left alone for two activator periods, then four, at most 32.";
    SilentListed, "silent_listed", "Silent pods stay in the endpoints file: the floor, the panic threshold or missing keepalives of most pods keep them.";
    SlowKeepalives, "slow_keepalives", "Pods keep expiring and coming back, because they ping less often than the TTL of this master allows.";
    StatusForbidden, "status_forbidden", "The API server forbids reading or writing the ledger; nothing is withheld until the role allows it.";
    StoreAway, "store_away", "The store does not answer; the ensemble is frozen and nothing expires.";
    StoreUnreadable, "store_unreadable", "The stored records cannot be read, so that the leadership term cannot begin.";
    StoreWrite, "store_write", "Changes cannot be written to the store; they wait in memory.";
    TaskEnded, "task_ended", "A part of the process ended unexpectedly; the process ends with an error, or is not ready if only one service is concerned.";
    Unclaimed, "unclaimed", "Pods are not claimed yet; nothing is withheld until they are.";
    UnknownListed, "unknown_listed", "Silent pods stay listed by the plan, because removing them would break the floor or the panic threshold.";
    VerdictsWithoutGate, "verdicts_without_gate", "The callback prints verdicts where nothing is gated: set KUBERVISOR_ENDPOINTS.";
    WithheldForGood, "withheld_for_good", "Pods are due to be killed, which this process cannot do; they stay withheld.";
    WritesRefused, "writes_refused", "An admission policy, a webhook or a disruption budget refuses or changes writes to pods; these are tried again, the others go on.";
}

impl fmt::Display for AlarmReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for AlarmReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// So that a test or a page can compare with the public name.
impl PartialEq<&str> for AlarmReason {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}
