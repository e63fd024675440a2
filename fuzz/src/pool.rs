//! What mutations start from.

use std::collections::BTreeSet;

use crate::random::hash;

/// Inputs that were learnt; a run of a minute learns some hundred.
const LEARNT_MAX: usize = 10_000;

/// What is said is compared by its beginning.
const SAID_BYTES_MAX: usize = 200;

#[derive(Debug)]
pub(crate) struct Pool {
    inputs: Vec<Vec<u8>>,
    pub(crate) words: Vec<Vec<u8>>,
    said: BTreeSet<u64>,
}

impl Pool {
    pub(crate) fn new(inputs: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> Self {
        Self { inputs, words, said: BTreeSet::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.inputs.len()
    }

    pub(crate) fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Keeps an input about which something new is said.
    pub(crate) fn learn(&mut self, input: Vec<u8>, said: &str) {
        if self.inputs.len() < LEARNT_MAX && self.said.insert(hash(essence(said).as_bytes())) {
            self.inputs.push(input);
        }
    }
}

/// What is said, without its numbers and without what it quotes of the input.
fn essence(said: &str) -> String {
    let (mut essence, mut quote) = (String::new(), None);
    for c in said.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if c == '`' || c == '"' => quote = Some(c),
            None if c.is_ascii_digit() => {}
            None => essence.push(c),
        }
        if essence.len() >= SAID_BYTES_MAX {
            break;
        }
    }
    essence
}
