//! End to end: the real binary, real processes, a real kernel, real sockets. One test for each promise of the README.
//!
//! They need root. Every test has a Kiln of its own, and fails if anything of it is left behind.

mod faults;
mod load;
mod machine;
mod mistakes;
mod rollouts;
