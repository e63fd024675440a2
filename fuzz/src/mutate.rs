//! How an input is made of others.

use crate::pool::Pool;
use crate::random::Random;

/// Larger inputs only cost time: what parsers get wrong, they get wrong in a few lines or blocks.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Changes to one input; most mistakes need one or two.
const CHANGES_MAX: usize = 6;

/// A part that is repeated, taken out or put in.
const PART_BYTES_MAX: usize = 1 << 10;

/// Bytes that end, begin or escape something somewhere.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff \t\r\n\"'\\/.:;,=#%$&*?{}[]()<>0123456789-+eE@";

/// Numbers at which something overflows.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
];

pub(crate) fn mutate(random: &mut Random, pool: &Pool) -> Vec<u8> {
    let mut input = random.choose(pool.inputs()).clone();
    input.truncate(INPUT_BYTES_MAX);
    for _ in 0..=random.below(CHANGES_MAX) {
        change(&mut input, random, pool);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, random: &mut Random, pool: &Pool) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(PART_BYTES_MAX.min(input.len() / 4 + 8))).min(input.len());
    match random.below(13) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = *random.choose(BYTES),
        2 => input.insert(at, *random.choose(BYTES)),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            drop(input.splice(to..to, part));
        }
        5 => {
            let part = input[at..end].to_vec();
            // Nesting and lists: the same many times over.
            let times = 1 + random.below(PART_BYTES_MAX / (part.len() + 1) + 1);
            drop(input.splice(at..at, part.repeat(times)));
        }
        6 | 7 if !pool.words.is_empty() => {
            let word = random.choose(&pool.words).clone();
            drop(input.splice(at..at, word));
        }
        8 if !pool.words.is_empty() => {
            let word = random.choose(&pool.words).clone();
            let end = (at + word.len()).min(input.len());
            drop(input.splice(at..end, word));
        }
        9 => number(input, at, random),
        10 => {
            let other = random.choose(pool.inputs());
            let from = random.below(other.len() + 1);
            let to = (from + 1 + random.below(INPUT_BYTES_MAX)).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        11 => input.truncate(at),
        _ => binary(input, at, random),
    }
}

/// Puts another number in the place of one that is written out.
fn number(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = random.choose(&NUMBERS).as_bytes();
    drop(input.splice(start..start + length, number.iter().copied()));
}

/// Puts a number of two, four or eight bytes in, near a limit or near what was there.
fn binary(input: &mut [u8], at: usize, random: &mut Random) {
    let width = *random.choose(&[2, 4, 8]);
    let Some(place) = input.get_mut(at..at + width) else { return };
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(place);
    let value = match random.below(3) {
        0 => u64::from_le_bytes(bytes).wrapping_add(random.next() % 16).wrapping_sub(8),
        1 => (1 << random.below(64)) - random.next() % 2,
        _ => u64::MAX - random.next() % 16,
    };
    place.copy_from_slice(&value.to_le_bytes()[..width]);
    if random.below(2) == 0 {
        place.reverse();
    }
}
