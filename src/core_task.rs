//! Tasks without which a process does not do its work: one that ends unexpectedly raises
//! [`AlarmReason::TaskEnded`], and the alarm of the process itself ends it with an error (see [`Alarms::fatal`]).
//!
//! A panic of any other task, such as one connection's, ends that task only.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::{alarms::Alarms, decide::alarm_reason::AlarmReason};

/// A task that runs until `stop`: neither a panic nor a return before that is expected.
pub fn until_stopped<T: Future<Output = ()>>(
    alarms: &Alarms,
    name: &str,
    stop: &CancellationToken,
    task: T,
) -> impl Future<Output = ()> + use<T> {
    let (alarms, name, stop) = (alarms.clone(), name.to_owned(), stop.clone());
    async move {
        if returned(&alarms, &name, task).await && !stop.is_cancelled() {
            alarms.raise(AlarmReason::TaskEnded, ended(&name, "returned although nothing stopped it"));
        }
    }
}

/// A task that may return, but not panic.
pub async fn without_panic(alarms: Alarms, name: String, task: impl Future<Output = ()>) {
    let _told = returned(&alarms, &name, task).await;
}

/// The work of a thread of its own, which may return, but not panic.
pub fn thread(alarms: &Alarms, name: &str, work: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(work)) {
        alarms.raise(AlarmReason::TaskEnded, ended(name, &format!("panicked: {}", message(&*panic))));
    }
}

/// Whether `task` returned; its panic is an alarm.
async fn returned(alarms: &Alarms, name: &str, task: impl Future<Output = ()>) -> bool {
    let panic = AssertUnwindSafe(task).catch_unwind().await.err();
    if let Some(panic) = &panic {
        alarms.raise(AlarmReason::TaskEnded, ended(name, &format!("panicked: {}", message(&**panic))));
    }
    panic.is_none()
}

/// Runs `work` on a blocking thread; its panic is the caller's. `None` when the runtime ends first.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            resume(error);
            None
        }
    }
}

/// Panics in the caller if `error` is a panic.
pub fn resume(error: tokio::task::JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

fn ended(name: &str, how: &str) -> String {
    format!("the task of {name} {how}; this is a bug, please report it; restart the process")
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    async fn fatal(alarms: &Alarms) -> Option<String> {
        alarms.fatal().now_or_never()
    }

    #[tokio::test]
    async fn a_core_task_that_panics_is_an_alarm_that_ends_the_process() {
        let alarms = Alarms::new(Clock::start());
        let stop = CancellationToken::new();
        assert_eq!(fatal(&alarms).await, None);
        until_stopped(&alarms, "the election", &stop, async { panic!("number {}", 7) }).await;
        let why = fatal(&alarms).await.unwrap();
        assert!(why.contains("the election panicked: number 7"), "{why}");
        assert_eq!(alarms.up()[0].reason, AlarmReason::TaskEnded);
    }

    #[tokio::test]
    async fn a_core_task_that_returns_early_is_one_too_and_after_a_stop_it_is_not() {
        let (alarms, stop) = (Alarms::new(Clock::start()), CancellationToken::new());
        stop.cancel();
        until_stopped(&alarms, "the port", &stop, async {}).await;
        assert_eq!(fatal(&alarms).await, None);
        until_stopped(&alarms, "the port", &CancellationToken::new(), async {}).await;
        assert!(fatal(&alarms).await.unwrap().contains("the port returned"));
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_one_too() {
        let alarms = Alarms::new(Clock::start());
        thread(&alarms, "the file", || ());
        assert_eq!(fatal(&alarms).await, None);
        thread(&alarms, "the file", || panic!("torn page"));
        assert!(fatal(&alarms).await.unwrap().contains("the file panicked: torn page"));
    }

    #[tokio::test]
    async fn a_panic_that_concerns_one_service_is_its_alarm_and_ends_nothing_else() {
        let alarms = Alarms::new(Clock::start());
        without_panic(alarms.of("shop/web"), "it".to_owned(), async { panic!("x") }).await;
        assert_eq!(fatal(&alarms).await, None);
        assert_eq!(&*alarms.up()[0].of, "shop/web");
    }

    #[tokio::test]
    async fn a_panic_on_a_blocking_thread_is_the_callers() {
        let caught = AssertUnwindSafe(blocking(|| -> u8 { panic!("deep") })).catch_unwind().await;
        assert_eq!(message(&*caught.unwrap_err()), "deep");
    }
}
