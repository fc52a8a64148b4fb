//! End to end: real processes, real sockets, a real etcd, callbacks in Python and shell.
//!
//! Each line of the specification's "Details of the original" and "Where we do better", and the test that holds it:
//!
//! | line | test |
//! |---|---|
//! | `MD5` and `HASH` are the digest of the exact bytes of `PODS`; ASCII, in order of `seq` | `details::the_digest_is_the_md5_of_the_exact_bytes_that_the_callback_gets` |
//! | unknown members are kept, a client's own `seq` is overridden, any JSON is a payload | the same, and `tests/properties` |
//! | the callback inherits environment and working directory | the same |
//! | `KONTROL_SHELL_CALLBACK=TRUE` runs the whole line | `details::a_shell_callback_is_the_whole_line` |
//! | every start runs the callback once, `PODS=[]` when there is nobody | `details::a_start_runs_the_callback_once_and_the_last_goodbye_leaves_an_empty_list` |
//! | every fail-over runs it once, at once | `ha::a_graceful_stop_hands_over_at_once` |
//! | all pods gone: `PODS=[]` | `details::a_start_runs_the_callback_once_and_the_last_goodbye_leaves_an_empty_list` |
//! | a malformed ping is answered and blocks nobody; HTTP says 4xx | `details::a_flood_of_nonsense_stops_nobody`, `details::curl_is_all_that_a_client_needs`, `tests/wire` |
//! | `invoke` on a pure master answers None | `heal::a_pure_master_runs_no_command` |
//! | a touched payload forces a keepalive and no digest | `details::a_touched_payload_is_a_keepalive_and_no_change` |
//! | `down` removes at once, and a pod that is back within its TTL is seen again | `details::a_goodbye_counts_at_once_and_a_return_keeps_its_number` |
//! | several masters: independent, one nonce, a dead one delays nobody | `topologies::separate_tiers_with_a_dead_master_among_them` |
//! | configuration errors and a taken port: exit code 2 | `details::wrong_configuration_is_exit_code_2_and_says_what_to_do` |
//! | 1: a change during a run is due again | `details::a_change_during_a_run_is_due_again` |
//! | 2: a dead pod is noticed at its TTL | `details::a_dead_pod_is_out_at_its_ttl` |
//! | 2: a lost ping expires nobody | `src/roles/agent` |
//! | 3: `PODS` beyond the kernel's limit | `details::six_hundred_pods_reach_the_callback`, `tests/process/callbacks.rs` |
//! | 4: output drained and bounded, time-out, group killed | `tests/process` |
//! | 5: a failed run keeps the state and is tried again; state is written with the term | `details::a_failing_callback_keeps_the_state_and_is_tried_again`, `ha::a_frozen_leader_wakes_up_and_writes_nothing` |
//! | 6: malformed keepalives are refused, counted, and block nobody | `details::a_flood_of_nonsense_stops_nobody` |
//! | 7: heartbeats are not written to the store | `ha::heartbeats_cost_the_store_nothing` |
//! | 8: a graceful stop hands over at once; a new leader grants everybody a TTL | `ha::a_graceful_stop_hands_over_at_once`, `ha::a_killed_leader_is_replaced_and_nothing_is_lost` |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e/details.rs"]
mod details;
#[path = "e2e/disks.rs"]
mod disks;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "e2e/gate.rs"]
mod gate;
#[path = "e2e/ha.rs"]
mod ha;
#[path = "e2e/heal.rs"]
mod heal;
#[path = "e2e/names.rs"]
mod names;
#[path = "e2e/output.rs"]
mod output;
#[path = "e2e/pages.rs"]
mod pages;
#[path = "e2e/pause.rs"]
mod pause;
#[path = "support/ports.rs"]
mod ports;
#[path = "e2e/signals.rs"]
mod signals;
#[path = "support/stage.rs"]
mod stage;
#[path = "e2e/topologies.rs"]
mod topologies;
