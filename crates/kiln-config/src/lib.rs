//! HCL text to a Stack, with diagnostics: bytes in, no I/O.

mod build;
mod declare;
mod diagnostic;
mod eval;
mod files;
mod fmt;
mod functions;
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
pub use load::{Loaded, Request, check_fragment, load};
pub use schema::{AttributeSchema, BlockSchema, NestedBlock, blocks};
pub use source::{SOURCE_BYTES_MAX, SourceSet};
pub use variables::{RawOrigin, RawValue};
