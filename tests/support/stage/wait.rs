//! Waits for a condition, or checks that one holds.

use std::time::{Duration, Instant};

/// The longest that any condition is waited for.
pub const CAP: Duration = Duration::from_secs(30);

/// Something that may be there.
pub trait Found {
    type Thing;
    fn found(self) -> Option<Self::Thing>;
}

impl Found for bool {
    type Thing = ();
    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Found for Option<T> {
    type Thing = T;
    fn found(self) -> Self {
        self
    }
}

/// Waits until `look` finds something, at most [`CAP`].
pub async fn until<F: Found>(what: &str, mut look: impl AsyncFnMut() -> F) -> F::Thing {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await.found() {
            return found;
        }
        assert!(begun.elapsed() < CAP, "still not so after {CAP:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks for a while that `holds` stays true: for what must *not* happen.
pub async fn throughout(duration: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        assert!(holds().await, "not any more after {:?}: {what}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
