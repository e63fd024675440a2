//! The heap of a bake, and what a forked process can do without.
//!
//! A fork copies the page tables of all memory that the parent touched, and from then on the parent pays for the first write to
//! each page: 2.6 µs where the child still has it, 0.2 µs where it gave it back. A sandbox waits for its step while the bake goes on
//! writing, so it gives back the heap first.

use std::ops::Range;

/// Less is not worth a system call. The loader's own data is far smaller, and stays.
const BYTES_MIN: usize = 256 << 10;

/// How much more the heap asks the kernel for than is needed.
#[cfg(target_env = "gnu")]
const HEAP_STEP_BYTES: libc::c_int = 4 << 20;

/// What is larger gets memory of its own: the most that the library takes.
#[cfg(target_env = "gnu")]
const HEAP_PIECE_BYTES_MAX: libc::c_int = 32 << 20;

/// Returns the private memory without a file, by the text of `/proc/self/maps`, but for what holds one of `kept`.
pub(in crate::sandbox) fn dispensable(maps: &str, kept: &[usize]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // Where the mapping of a file ends that has no end of its own yet: its zeroed data follows at once.
    let mut file_end = None;
    for line in maps.lines() {
        let Some((range, rest)) = mapping(line) else { continue };
        let mut words = rest.split_ascii_whitespace();
        let (access, inode) = (words.next().unwrap_or_default(), words.nth(2).unwrap_or_default());
        let name = words.next().unwrap_or_default();
        if inode != "0" {
            file_end = Some(range.end);
            continue;
        }
        let is_heap = name == "[heap]" || name.is_empty() && file_end != Some(range.start);
        let is_needed = kept.iter().any(|address| range.contains(address));
        if is_heap && access == "rw-p" && range.len() >= BYTES_MIN && !is_needed {
            found.push(range);
        }
    }
    found
}

/// Has all threads of this process share one heap, which grows in large steps and is given back at its end. To be called before there
/// are others than the first.
///
/// The GNU C library gives each thread a heap, and lets it grow by single pages, each with a system call that no other thread may
/// touch new memory beside: for a bake that is a twentieth of its processor time. Waiting for each other is less.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, HEAP_STEP_BYTES),
        (libc::M_MMAP_THRESHOLD, HEAP_PIECE_BYTES_MAX),
        (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
    ] {
        // SAFETY: it changes numbers of the allocator, which is fit for that at any time.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

fn mapping(line: &str) -> Option<(Range<usize>, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?..number(end)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heaps_are_dispensable_and_code_data_small_things_and_the_own_stack_are_not() {
        let maps = "\
10000000-10400000 r-xp 00000000 08:01 77 /usr/bin/kiln
10400000-10500000 rw-p 00400000 08:01 77 /usr/bin/kiln
10500000-10600000 rw-p 00000000 00:00 0 
20000000-20800000 rw-p 00000000 00:00 0 [heap]
30000000-30800000 rw-p 00000000 00:00 0 
30800000-34000000 ---p 00000000 00:00 0 
40000000-40010000 rw-p 00000000 00:00 0 
50000000-50200000 rw-p 00000000 00:00 0 
60000000-60800000 rw-s 00000000 00:01 9 /dev/zero (deleted)
70000000-70200000 rw-p 00000000 00:00 0 [stack]
";
        let found = dispensable(maps, &[0x5000_1234]);
        assert_eq!(found, [0x2000_0000..0x2080_0000, 0x3000_0000..0x3080_0000]);
        assert!(dispensable("nonsense\n12 34\n", &[]).is_empty());
    }
}
