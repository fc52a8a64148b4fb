//! What this process may believe about its leadership, and until when.
//!
//! A renewed lease vouches until the moment the renewal was *sent* plus its time to live, less a margin: all on
//! our own monotonic clock, so that it ends here before it can end on the server. After that moment the lease_state
//! is unknown, whatever it was.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    adapters::store::{Leader, Leadership, Term},
    clock::Clock,
    decide::time::Moment,
};

struct LeaseRecord {
    /// The lease vouches for us until then.
    until: Moment,
    /// The term that was ours last and that nobody has ended yet.
    held: Option<Term>,
    /// We have left for good.
    retired: bool,
}

/// Our leadership, as others may watch it.
pub(super) struct LeaseState {
    clock: Clock,
    book: Mutex<LeaseRecord>,
    until: watch::Sender<Moment>,
    leadership: watch::Sender<Leadership>,
}

impl LeaseState {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            book: Mutex::new(LeaseRecord { until: Moment::ORIGIN, held: None, retired: false }),
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
        let mut book = self.lock();
        book.until = book.until.max(sent + ttl.saturating_sub(margin));
        self.until.send_replace(book.until);
    }

    /// Our lease has ended: whatever hung on it is gone.
    pub(super) fn forfeit(&self) {
        let mut book = self.lock();
        if book.held.take().is_some() {
            self.publish(&book, Leadership::Follower { leader: None });
        }
    }

    /// The election key is ours.
    pub(super) fn lead(&self, term: Term) {
        let mut book = self.lock();
        book.held = Some(term);
        self.publish(&book, Leadership::Leading { term });
    }

    /// The election key is another's, or not there.
    pub(super) fn follow(&self, leader: Option<Leader>) {
        let mut book = self.lock();
        book.held = None;
        self.publish(&book, Leadership::Follower { leader });
    }

    /// A write was refused: `term` is over.
    pub(super) fn depose(&self, term: Term) {
        let mut book = self.lock();
        if book.held == Some(term) {
            book.held = None;
            self.publish(&book, Leadership::Follower { leader: None });
        }
    }

    /// We leave: nothing changes any more.
    pub(super) fn retire(&self) {
        let mut book = self.lock();
        book.held = None;
        book.retired = true;
        self.leadership.send_replace(Leadership::Follower { leader: None });
    }

    /// Whether a write with `term` is worth sending. The transaction's own comparison is what protects the store.
    pub(super) fn may_write(&self, term: Term) -> bool {
        self.lock().held == Some(term)
    }

    /// Whether the lease vouches for `term` now, whether or not the guard has had its turn.
    pub(super) fn may_act(&self, term: Term) -> bool {
        let book = self.lock();
        book.held == Some(term) && self.clock.now() < book.until
    }

    /// Watches the deadline, for ever.
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
        let book = self.lock();
        if self.clock.now() >= book.until {
            self.publish(&book, Leadership::Unknown);
        }
    }

    /// Shows `leadership`, or that it is unknown when the lease vouches for nothing any more.
    fn publish(&self, book: &LeaseRecord, leadership: Leadership) {
        if book.retired {
            return;
        }
        let now = if self.clock.now() < book.until { leadership } else { Leadership::Unknown };
        let changed = self.leadership.send_if_modified(|shown| {
            let changed = *shown != now;
            shown.clone_from(&now);
            changed
        });
        if changed {
            tracing::info!(leadership = ?now, "leadership");
        }
    }

    fn lock(&self) -> MutexGuard<'_, LeaseRecord> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_on_our_own_clock_before_the_lease_can_end_on_the_server() {
        let clock = Clock::start();
        let lease_state = std::sync::Arc::new(LeaseState::new(clock));
        let guarded = std::sync::Arc::clone(&lease_state);
        let guard = tokio::spawn(async move { guarded.guard().await });
        let mut shown = lease_state.subscribe();
        lease_state.vouch(clock.now(), TTL);
        lease_state.lead(Term(7));
        let granted = clock.now();
        shown.wait_for(|now| *now == Leadership::Leading { term: Term(7) }).await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        lease_state.vouch(clock.now(), TTL);
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
        let lease_state = LeaseState::new(clock);
        lease_state.vouch(clock.now(), TTL);
        lease_state.lead(Term(7));
        assert!(lease_state.may_act(Term(7)));
        tokio::time::advance(TTL).await;
        assert!(!lease_state.may_act(Term(7)), "also before the guard has woken up");
        lease_state.lapse();
        assert!(lease_state.is_unknown());
        assert!(lease_state.may_write(Term(7)), "the transaction decides");
        assert!(!lease_state.may_act(Term(7)), "nothing guards what is no write");
        assert!(!lease_state.may_write(Term(6)));
        lease_state.forfeit();
        assert!(!lease_state.may_write(Term(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_election_won_with_an_old_lease_does_not_show() {
        let clock = Clock::start();
        let lease_state = LeaseState::new(clock);
        lease_state.vouch(clock.now(), TTL);
        tokio::time::advance(TTL).await;
        lease_state.lead(Term(7));
        assert!(lease_state.is_unknown());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_never_leads_again() {
        let clock = Clock::start();
        let lease_state = LeaseState::new(clock);
        lease_state.vouch(clock.now(), TTL);
        lease_state.lead(Term(7));
        lease_state.retire();
        lease_state.lead(Term(8));
        assert_eq!(*lease_state.subscribe().borrow(), Leadership::Follower { leader: None });
    }
}
