//! Connections that nobody reads just now: their receiver takes nothing, or an answer is waited for. Nothing
//! tells them meanwhile that their sender is gone. They are woken now and then to look; bytes that move pay
//! nothing for it.

use std::cell::RefCell;
use std::task::{Context, Waker};

thread_local! {
    static STALLED: RefCell<Stalled> = RefCell::default();
}

#[derive(Default)]
struct Stalled {
    waiting: Vec<Waker>,
    round: u32,
}

/// The round in which a direction last asked to be woken, so that it asks but once in each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watch(u32);

/// Asks to be woken by the next [`rouse_stalled`] on this thread; tells whether that was news.
pub fn watch(last: &mut Watch, cx: &Context<'_>) -> bool {
    STALLED.with_borrow_mut(|stalled| {
        let this = Watch(stalled.round.wrapping_add(1));
        let asks = *last != this;
        if asks {
            *last = this;
            stalled.waiting.push(cx.waker().clone());
        }
        asks
    })
}

/// Wakes the connections of this thread that cannot hand on what they hold, so that each looks whether its
/// sender is still there. To be called every second or so by each thread that serves connections.
pub fn rouse_stalled() {
    let waiting = STALLED.with_borrow_mut(|stalled| {
        stalled.round = stalled.round.wrapping_add(1);
        std::mem::take(&mut stalled.waiting)
    });
    waiting.into_iter().for_each(Waker::wake);
}
