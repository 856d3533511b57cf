//! The system's clock and randomness, taken over: while a simulation runs, whoever asks the system for the time gets the simulated
//! one, and whoever asks for randomness gets what follows from the seed. So neither the product nor its libraries know of any of it.
//!
//! The functions stand in the place of the C library's, in the programs that this crate is linked into, and do what those do until
//! [`take_over`]. AWS-LC gathers entropy by itself, past them: keys, signatures and serial numbers differ from run to run, and nothing
//! else may follow from them. There is one simulation for each process, on one thread.

#![allow(unsafe_code)]

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use rustix::process::Pid;

/// When simulations begin: 21 September 2026, 12:53:20 UTC. Milliseconds.
pub const BEGINNING: i64 = 1_789_995_200_000;
/// What the monotonic clock shows then, nanoseconds: long enough that what was "an hour ago" can be computed.
const UP_FOR: i64 = 1_000_000 * 1_000_000_000;
const NANOS: i64 = 1_000_000_000;

static TAKEN: AtomicBool = AtomicBool::new(false);
/// Nanoseconds since the beginning.
static ELAPSED: AtomicI64 = AtomicI64::new(0);
/// How far the controllers' clocks are off, nanoseconds.
static SKEW: AtomicI64 = AtomicI64::new(0);
/// How far the API server's clock is off, nanoseconds.
static SERVERS_SKEW: AtomicI64 = AtomicI64::new(0);
/// Whether a device is asking, whose clock is right.
static RIGHT: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// From now on time stands still until [`set_elapsed`], and randomness follows from `seed`.
pub fn take_over(seed: u64) {
    seeded(seed);
    TAKEN.store(true, Relaxed);
}

/// Begins another sequence of randomness.
pub fn seeded(seed: u64) {
    RANDOM.store(seed, Relaxed);
}

/// Sets the time, nanoseconds since the beginning.
pub fn set_elapsed(nanos: i64) {
    ELAPSED.store(nanos, Relaxed);
}

/// Milliseconds since the beginning.
pub fn elapsed_ms() -> i64 {
    ELAPSED.load(Relaxed) / 1_000_000
}

/// The right time, Unix milliseconds, whatever the controllers' clocks say.
pub fn now_ms() -> i64 {
    BEGINNING + elapsed_ms()
}

/// What the API server takes for the time, Unix milliseconds.
pub fn servers_ms() -> i64 {
    now_ms() + SERVERS_SKEW.load(Relaxed) / 1_000_000
}

/// Has the controllers' clocks and the API server's be off by so many milliseconds.
pub fn set_skew(controllers: i64, server: i64) {
    SKEW.store(controllers * 1_000_000, Relaxed);
    SERVERS_SKEW.store(server * 1_000_000, Relaxed);
}

/// Runs a future by the right clock.
pub fn by_right_clock<F: Future>(future: F) -> impl Future<Output = F::Output> {
    ByRightClock(Box::pin(future))
}

struct ByRightClock<F>(Pin<Box<F>>);

impl<F: Future> Future for ByRightClock<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = RIGHT.swap(true, Relaxed);
        let polled = self.0.as_mut().poll(context);
        RIGHT.store(before, Relaxed);
        polled
    }
}

fn next_random() -> u64 {
    // SplitMix64.
    let state = RANDOM
        .fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// In the place of the C library's.
///
/// # Safety
/// As that one: `out` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(id: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    let nanos = match id {
        _ if !TAKEN.load(Relaxed) => None,
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            let skew = if RIGHT.load(Relaxed) { 0 } else { SKEW.load(Relaxed) };
            Some(BEGINNING * 1_000_000 + ELAPSED.load(Relaxed) + skew)
        }
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_BOOTTIME => {
            Some(UP_FOR + ELAPSED.load(Relaxed))
        }
        _ => None,
    };
    match nanos {
        Some(nanos) => {
            let now = libc::timespec {
                tv_sec: nanos / NANOS,
                tv_nsec: nanos % NANOS,
            };
            // SAFETY: the caller says so.
            unsafe { out.write(now) };
            0
        }
        // SAFETY: the arguments are the caller's own.
        None => unsafe { i32::from(libc::syscall(libc::SYS_clock_gettime, id, out) != 0).wrapping_neg() },
    }
}

/// In the place of the C library's.
///
/// # Safety
/// As that one: `len` bytes from `buffer` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, len: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !TAKEN.load(Relaxed) {
        // SAFETY: the arguments are the caller's own.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) };
        return libc::ssize_t::try_from(got).unwrap_or(-1);
    }
    let mut left = len;
    let mut at = buffer.cast::<u8>();
    while left > 0 {
        let bytes = next_random().to_le_bytes();
        let count = left.min(bytes.len());
        // SAFETY: `count` bytes are left from `at`, the caller says so.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, count);
            at = at.add(count);
        }
        left -= count;
    }
    len.cast_signed()
}

/// In the place of the C library's: no page is wiped in a process that is split off. AWS-LC tells from such a page that it must gather
/// new entropy, which takes a tenth of a run. Keys differ nevertheless where the processor has randomness of its own (`RDRAND`), which AWS-LC
/// adds each time; elsewhere runs may well have the same ones.
///
/// # Safety
/// As that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut libc::c_void, len: libc::size_t, advice: libc::c_int) -> libc::c_int {
    if advice == libc::MADV_WIPEONFORK {
        return 0;
    }
    // SAFETY: the arguments are the caller's own.
    unsafe { i32::from(libc::syscall(libc::SYS_madvise, address, len, advice) != 0).wrapping_neg() }
}

/// The real time that has passed since some moment, milliseconds.
pub fn real_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` may be written.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Splits this process, which has one thread, in two: `None` in the new one, which the system ends after so many real seconds.
pub fn fork(seconds: u32) -> io::Result<Option<Pid>> {
    // SAFETY: there is no other thread that could hold a lock.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: has no conditions.
            unsafe { libc::alarm(seconds) };
            Ok(None)
        }
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends this process at once: nothing of what it shares with the one that it was split from is put away.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: has no conditions.
    unsafe { libc::_exit(code) }
}
