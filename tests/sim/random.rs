//! The kernel's random numbers, from the seed: std draws the keys of its hash maps from the weak symbol `getrandom`, and
//! tokio the order of `select!` and of wake-ups from such keys. Only so does a seed replay identically.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::seeds;

static STATE: AtomicU64 = AtomicU64::new(0);

/// Fills the buffer, as the C library's function does.
///
/// # Safety
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller says so.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for byte in buffer {
        let drawn = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ seeds::given().unwrap_or(0);
        *byte = (drawn.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8;
    }
    isize::try_from(length).unwrap_or(0)
}
