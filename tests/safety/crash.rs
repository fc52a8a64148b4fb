//! A crash at every single write: from the first claim to the release of the last entry, the controller is killed
//! before the nth write reaches the server, and after the server has answered it. Each time the next one must bring the
//! cycle to its end.

use futures::{StreamExt, stream};

use crate::{
    cycle::Cycle,
    plane::{self, Plane},
    proxy::{Asked, Fault, Matching},
    shop,
};

/// How many crashes at once: as many as a small machine carries.
const AT_ONCE: usize = 4;

/// When the controller dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The server never hears of the nth write.
    Before(usize),
    /// The controller never hears the answer to it.
    After(usize),
    /// Not at all.
    Never,
}

/// The writes of a cycle with a crash at that moment; `None`: it had not so many.
async fn with_one_crash(plane: &Plane, moment: Moment) -> Option<Vec<Asked>> {
    let mut cycle = Cycle::prepare(plane, format!("{moment:?}")).await;
    match moment {
        Moment::Before(nth) => cycle.proxy.on(Matching::writes().nth(nth), Fault::Before(cycle.killer())),
        Moment::After(nth) => cycle.proxy.on(Matching::writes().nth(nth), Fault::After(cycle.killer())),
        Moment::Never => {}
    }
    cycle.run().await;
    cycle.judged().await;
    let as_planned = matches!(moment, Moment::Never) || cycle.was_killed();
    as_planned.then(|| cycle.writes())
}

#[tokio::test]
async fn a_crash_at_any_write_of_a_cycle_leaves_nothing_dark_and_nothing_below_the_floor() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let writes = with_one_crash(&plane, Moment::Never).await.unwrap();
    println!("{} writes in one cycle:", writes.len());
    for asked in &writes {
        println!("  {} {} {:?} -> {:?}", asked.verb, asked.resource, asked.name, asked.code);
    }
    // Reports are written when it suits: some cycle may have a write less. The plan goes on until none has the nth.
    let mut crashes = 0;
    for first in (1..).step_by(AT_ONCE) {
        let moments = (first..first + AT_ONCE).flat_map(|nth| [Moment::Before(nth), Moment::After(nth)]);
        let crashed =
            stream::iter(moments).map(|moment| with_one_crash(&plane, moment)).buffer_unordered(AT_ONCE);
        let crashed = crashed.filter(|writes| std::future::ready(writes.is_some())).count().await;
        crashes += crashed;
        if crashed == 0 {
            break;
        }
    }
    println!("{crashes} crashes");
    assert!(crashes >= 2 * (writes.len() - 1), "of {} writes only {crashes} crashes", writes.len());
}
