//! From good bytes to nearly good ones.

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _};

/// Longer ones are of no use: every parser refuses them by their length.
const LONGEST: usize = 40 * 1024;
/// Lengths, tags and numbers at the edges.
const EDGES: [u8; 16] = [
    0x00, 0x01, 0x02, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0xa0, 0xa3, 0xfe, 0xff, b'"', b'\\',
];

/// Makes the next input: now and then wholly random, mostly one of `seeds` with a few changes.
pub(super) fn next(random: &mut SmallRng, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    if seeds.is_empty() || random.random_ratio(1, 16) {
        input.resize(random.random_range(0..200), 0);
        random.fill_bytes(input);
        return;
    }
    input.extend_from_slice(&seeds[random.random_range(0..seeds.len())]);
    // One small change mostly: more and nothing behind the first layer is ever reached.
    let changes = 1 + random.random_range(0..4_u32).saturating_sub(1);
    for _ in 0..changes {
        change(random, seeds, input);
    }
    input.truncate(LONGEST);
}

fn change(random: &mut SmallRng, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    if input.is_empty() {
        return input.push(random.random());
    }
    let at = random.random_range(0..input.len());
    let span = random.random_range(1..=16.min(input.len() - at));
    match random.random_range(0..10) {
        0 | 1 => input[at] ^= 1 << random.random_range(0..8_u8),
        2 => input[at] = EDGES[random.random_range(0..EDGES.len())],
        3 => input[at] = input[at].wrapping_add(if random.random() { 1 } else { 255 }),
        4 => input[at] = random.random(),
        5 => drop(input.drain(at..at + span)),
        6 => input.insert(at, EDGES[random.random_range(0..EDGES.len())]),
        // The same again, as a field or element twice.
        7 => {
            let copy = input[at..at + span].to_vec();
            input.splice(at..at, copy);
        }
        8 => input.truncate(at),
        // The end of another one.
        _ => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}
