//! Compiles what stands without a C library: the clock of a bake, `src/clock/clock.c`, and what starts the python of playbooks,
//! `src/provision/launch.c`.

use std::path::PathBuf;

fn main() {
    // musl and glibc look names up in tables of their own.
    compile("src/clock/clock.c", "clock.so", &["-shared", "-fPIC", "-Wl,--hash-style=both"]);
    compile("src/provision/launch.c", "launch", &["-static", "-no-pie", "-fno-pic"]);
}

fn compile(source: &str, name: &str, form: &[&str]) {
    println!("cargo::rerun-if-changed={source}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
    // The compiler that cargo's other C dependencies are built with, for the target that is built.
    let mut command = cc::Build::new().opt_level(2).debug(false).get_compiler().to_command();
    command.args(form).args(["-nostdlib", "-ffreestanding", "-fvisibility=hidden"]);
    // Nothing of the compiler's own library either: no stack protector, no helpers for atomics.
    command.args(["-fno-stack-protector", "-fno-asynchronous-unwind-tables"]);
    command.args(["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-s"]);
    let status = command.arg("-o").arg(&out).arg(source).status();
    let status = status.unwrap_or_else(|error| panic!("the C compiler can't be run: {error}"));
    assert!(status.success(), "the C compiler refuses {source}: {command:?}");
}
