//! Compiles the clock of a bake: `src/clock/clock.c`, a library that needs no other.

use std::path::PathBuf;

fn main() {
    let source = "src/clock/clock.c";
    println!("cargo::rerun-if-changed={source}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("clock.so");
    // The compiler that cargo's other C dependencies are built with, for the target that is built.
    let mut command = cc::Build::new().opt_level(2).debug(false).get_compiler().to_command();
    command.args(["-shared", "-nostdlib", "-ffreestanding", "-fPIC", "-fvisibility=hidden"]);
    // Nothing of the compiler's own library either: no stack protector, no helpers for atomics.
    command.args(["-fno-stack-protector", "-fno-asynchronous-unwind-tables"]);
    // musl and glibc look names up in tables of their own.
    command.args(["-Wl,--hash-style=both", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-s"]);
    let status = command.arg("-o").arg(&out).arg(source).status();
    let status = status.unwrap_or_else(|error| panic!("the C compiler can't be run: {error}"));
    assert!(status.success(), "the C compiler refuses {source}: {command:?}");
}
