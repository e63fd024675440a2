//! The wire structs of everything that is stored as JSON.
