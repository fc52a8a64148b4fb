//! A leader's lease and its timing, judged on this process's monotonic clock; free of any backend.
//!
//! A renewal is valid from the moment it was *sent*, for its time to live less a margin, so that it ends here before
//! it can end on the server. After that moment leadership is [`Leadership::Unknown`].

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    adapters::store::{Leader, Leadership, Term},
    clock::Clock,
    decide::time::Moment,
};

/// Renewals that fit into a lease, so that two may fail.
pub(super) const RENEWALS: u32 = 3;

/// How long who has handed over, or cannot read the records, leaves the lead to the others.
pub(super) const HAND_OVER: Duration = Duration::from_secs(2);

struct LeaseRecord {
    /// End of the last renewal, margin deducted.
    until: Moment,
    /// Our newest term, until another leader, a refused write or a lost lease ends it.
    held: Option<Term>,
    /// How often the lease ended on our clock before it was renewed.
    lapses: u64,
    /// Set once by `retire`; nothing is published afterwards.
    retired: bool,
}

/// This process's leadership as a watch channel; shared by the tasks of one store.
pub(super) struct LeaseState {
    clock: Clock,
    record: Mutex<LeaseRecord>,
    until: watch::Sender<Moment>,
    leadership: watch::Sender<Leadership>,
}

impl LeaseState {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            record: Mutex::new(LeaseRecord { until: Moment::ORIGIN, held: None, lapses: 0, retired: false }),
            until: watch::channel(Moment::ORIGIN).0,
            leadership: watch::channel(Leadership::Unknown).0,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    pub(super) fn is_unknown(&self) -> bool {
        *self.leadership.borrow() == Leadership::Unknown
    }

    /// The lease was renewed by a request sent at `sent`, for `ttl`.
    pub(super) fn vouch(&self, sent: Moment, ttl: Duration) {
        let margin = (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(2));
        let mut record = self.record.lock();
        let lapsed = record.until <= self.clock.now();
        if lapsed && record.until > Moment::ORIGIN {
            record.lapses += 1;
            // Also where nobody was polled while it showed `Unknown`.
            self.leadership.send_modify(|_| {});
        }
        record.until = record.until.max(sent + ttl.saturating_sub(margin));
        self.until.send_replace(record.until);
    }

    /// How often the lease has ended on our clock and was renewed after that: others may have counted us as gone.
    pub(super) fn lapses(&self) -> u64 {
        self.record.lock().lapses
    }

    /// Whether the lease has ended on our clock.
    pub(super) fn has_lapsed(&self) -> bool {
        self.record.lock().until <= self.clock.now()
    }

    /// The server has ended our lease, and with it the leadership.
    pub(super) fn forfeit(&self) {
        let mut record = self.record.lock();
        if record.held.take().is_some() {
            self.publish(&record, Leadership::Follower { leader: None });
        }
    }

    /// This process was elected.
    pub(super) fn lead(&self, term: Term) {
        let mut record = self.record.lock();
        // A watch event may arrive after `retire`.
        if record.retired {
            return;
        }
        record.held = Some(term);
        self.publish(&record, Leadership::Leading { term });
    }

    /// This process leads still, unless a refused write has ended `term` meanwhile.
    pub(super) fn still_leads(&self, term: Term) {
        let record = self.record.lock();
        if record.held == Some(term) {
            self.publish(&record, Leadership::Leading { term });
        }
    }

    /// Another process leads, or none.
    pub(super) fn follow(&self, leader: Option<Leader>) {
        let mut record = self.record.lock();
        record.held = None;
        self.publish(&record, Leadership::Follower { leader });
    }

    /// A write was refused because `term` is over.
    pub(super) fn depose(&self, term: Term) {
        let mut record = self.record.lock();
        if record.held == Some(term) {
            record.held = None;
            self.publish(&record, Leadership::Follower { leader: None });
        }
    }

    /// Ends the leadership for good: later calls publish nothing.
    pub(super) fn retire(&self) {
        let mut record = self.record.lock();
        record.held = None;
        record.retired = true;
        self.leadership.send_replace(Leadership::Follower { leader: None });
    }

    /// Whether `term` may still be the newest. The transaction's comparison is the fence; this saves requests.
    pub(super) fn may_write(&self, term: Term) -> bool {
        self.record.lock().held == Some(term)
    }

    /// Whether the lease covers `term` at this moment, even before the guard has noticed the deadline.
    pub(super) fn may_act(&self, term: Term) -> bool {
        let record = self.record.lock();
        record.held == Some(term) && self.clock.now() < record.until
    }

    /// Publishes `Unknown` at each deadline that no renewal has moved; never returns.
    pub(super) async fn guard(&self) {
        let mut until = self.until.subscribe();
        loop {
            let deadline = *until.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(self.clock.instant(deadline)) => {
                    self.lapse();
                    if until.changed().await.is_err() {
                        return;
                    }
                }
                changed = until.changed() => if changed.is_err() { return },
            }
        }
    }

    fn lapse(&self) {
        let record = self.record.lock();
        if self.clock.now() >= record.until {
            self.publish(&record, Leadership::Unknown);
        }
    }

    /// Publishes `leadership`, or `Unknown` when the lease has lapsed.
    fn publish(&self, record: &LeaseRecord, leadership: Leadership) {
        if record.retired {
            return;
        }
        let now = if self.clock.now() < record.until { leadership } else { Leadership::Unknown };
        let changed = self.leadership.send_if_modified(|shown| {
            let changed = *shown != now;
            shown.clone_from(&now);
            changed
        });
        if changed {
            tracing::info!(leadership = ?now, "leadership");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_on_our_own_clock_before_the_lease_can_end_on_the_server() {
        let clock = Clock::start();
        let lease = std::sync::Arc::new(LeaseState::new(clock));
        let guarded = std::sync::Arc::clone(&lease);
        let guard = tokio::spawn(async move { guarded.guard().await });
        let mut shown = lease.subscribe();
        lease.vouch(clock.now(), TTL);
        lease.lead(Term(7));
        let granted = clock.now();
        shown.wait_for(|now| *now == Leadership::Leading { term: Term(7) }).await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        lease.vouch(clock.now(), TTL);
        shown.wait_for(|now| *now == Leadership::Unknown).await.unwrap();
        assert_eq!(
            clock.now().since(granted),
            Duration::from_secs(14),
            "renewed at 5, for 10, less the margin of 1"
        );
        guard.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lapsed_term_may_still_try_to_write_and_an_ended_one_may_not() {
        let clock = Clock::start();
        let lease = LeaseState::new(clock);
        lease.vouch(clock.now(), TTL);
        lease.lead(Term(7));
        assert!(lease.may_act(Term(7)));
        tokio::time::advance(TTL).await;
        assert!(!lease.may_act(Term(7)), "also before the guard has woken up");
        lease.lapse();
        assert!(lease.is_unknown());
        assert!(lease.may_write(Term(7)), "the transaction decides");
        assert!(!lease.may_act(Term(7)), "nothing guards what is no write");
        assert!(!lease.may_write(Term(6)));
        lease.forfeit();
        assert!(!lease.may_write(Term(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_election_won_with_an_old_lease_does_not_show() {
        let clock = Clock::start();
        let lease = LeaseState::new(clock);
        lease.vouch(clock.now(), TTL);
        tokio::time::advance(TTL).await;
        lease.lead(Term(7));
        assert!(lease.is_unknown());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_after_the_end_counts_as_a_lapse_and_wakes_whoever_missed_the_end() {
        let clock = Clock::start();
        let lease = LeaseState::new(clock);
        tokio::time::advance(TTL).await;
        lease.vouch(clock.now(), TTL);
        lease.follow(None);
        assert_eq!(lease.lapses(), 0, "the first one");
        tokio::time::advance(TTL / 2).await;
        lease.vouch(clock.now(), TTL);
        assert_eq!((lease.lapses(), lease.has_lapsed()), (0, false));
        let mut shown = lease.subscribe();
        shown.mark_unchanged();
        tokio::time::advance(TTL).await;
        assert!(lease.has_lapsed());
        lease.vouch(clock.now(), TTL);
        assert_eq!((lease.lapses(), lease.has_lapsed()), (1, false));
        assert!(shown.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_never_leads_again() {
        let clock = Clock::start();
        let lease = LeaseState::new(clock);
        lease.vouch(clock.now(), TTL);
        lease.lead(Term(7));
        lease.retire();
        lease.lead(Term(8));
        assert!(!lease.may_write(Term(8)) && !lease.may_act(Term(8)));
        assert_eq!(*lease.subscribe().borrow(), Leadership::Follower { leader: None });
    }
}
