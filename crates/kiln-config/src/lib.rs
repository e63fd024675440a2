//! HCL text to a Stack, with diagnostics: bytes in, no I/O.
//!
//! [`load()`] goes through these steps: `parse` (text to `syntax`, a broken block costs itself alone), `schema` (names of blocks and
//! attributes), `declare` (what there is), `graph` (what refers to what: order, cycles, what environments decide), `eval` and
//! `functions` (values, in that order), `variables`, and `build` (blocks to the model).
//!
//! # Architecture invariants
//! - Knows no runtime: nothing here runs, fetches or reads but through [`Files`], and time is the lock's.
//! - A sensitive value is in no diagnostic: messages name types, and source text that holds one is hidden.
//! - Hostile text ends in an error: every loop over data is counted, every size has a limit, and nothing recurses deeper than the
//!   parser lets text nest.

mod build;
mod declare;
mod diagnostic;
mod eval;
mod files;
mod fmt;
mod functions;
#[cfg(test)]
mod fuzz;
mod graph;
mod heredoc;
mod lex;
mod load;
mod lower;
mod number;
mod order;
mod parse;
mod reader;
mod references;
mod render;
mod resolve;
mod schema;
mod source;
mod suggest;
mod syntax;
mod types;
pub mod units;
mod value;
mod variables;

pub use diagnostic::{Diagnostic, Label, Severity};
pub use files::{FileError, Files, MemoryFiles, glob_pattern};
pub use fmt::fmt;
pub use functions::{FunctionInfo, functions};
pub use load::{ImageFile, Loaded, Request, check_fragment, load};
pub use schema::{AttributeSchema, BlockSchema, NestedBlock, blocks};
pub use source::{SOURCE_BYTES_MAX, SourceSet};
pub use units::parse_millis;
pub use variables::{RawOrigin, RawValue};
