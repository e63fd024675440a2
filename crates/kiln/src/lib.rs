//! The shell: the only place where effects meet decisions.

pub mod controller;
