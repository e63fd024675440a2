//! `cargo xtask vm KERNEL.deb`: the provider's tests on another kernel, where cgroup v2 has all controllers.
//!
//! A machine whose control groups are hybrid can't show that the pure layout works. Debian's own kernel can, under QEMU's
//! emulation, which needs no KVM: `apt-get download` a `linux-image-*` of 6.12 or later and name the file. By hand, not in CI:
//! it wants `qemu-system-x86`, `mmdebstrap`, `busybox-static`, `cpio`, and a quarter of an hour.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cargo::{cargo, target};
use crate::metadata;

const PACKAGE: &str = "kiln-provider";
/// What the tests call, and what loads modules.
const PACKAGES: &str = "--include=gcc,libc6-dev,iproute2,kmod";
/// Emulated, a test takes minutes that takes seconds here; beyond this it hangs.
const SECONDS_MAX: &str = "1800";
/// Without `cx16` and without the time stamp counter: QEMU 7.2 emulates both in a way that stops newer kernels.
const MACHINE: [&str; 10] = [
    "-accel",
    "tcg,thread=single",
    "-cpu",
    "qemu64,-cx16",
    "-m",
    "2048",
    "-nographic",
    "-no-reboot",
    "-net",
    "none",
];
const KERNEL_LINE: &str = "console=ttyS0 loglevel=1 panic=-1 tsc=unstable clocksource=acpi_pm no_timer_check";

/// Boots a machine for each test program and runs it there.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let [kernel] = arguments else { return Err("usage: cargo xtask vm LINUX-IMAGE.deb".into()) };
    let folder = target().join("vm");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let programs = test_programs()?;
    let root = folder.join("root");
    make_root(&folder, &root, Path::new(kernel), &programs)?;
    let mut failed = Vec::new();
    for program in &programs {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        println!("> {name}");
        if !boot(&folder, &root, program)? {
            failed.push(name.to_owned());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed in the machine: {}", failed.join(", "))) }
}

fn test_programs() -> Result<Vec<PathBuf>, String> {
    let output = cargo()
        .args(["test", "--no-run", "--locked", "--package", PACKAGE, "--lib", "--tests", "--bins"])
        .arg("--message-format=json")
        .output()
        .map_err(|error| format!("cannot build the tests: {error}"))?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = parsed.filter(|message| message["profile"]["test"] == true);
    let found: Vec<PathBuf> = tests.filter_map(|test| Some(test["executable"].as_str()?.into())).collect();
    if output.status.success() && !found.is_empty() {
        Ok(found)
    } else {
        Err("the tests do not build".into())
    }
}

/// Lays out a Debian with the kernel's modules, the tests' programs and the sources that they read, all at their own paths.
fn make_root(folder: &Path, root: &Path, kernel: &Path, programs: &[PathBuf]) -> Result<(), String> {
    let (base, unpacked) = (folder.join("base.tar"), folder.join("kernel"));
    if !base.exists() {
        call(Command::new("mmdebstrap").args(["--variant=minbase", PACKAGES, "bookworm"]).arg(&base))?;
    }
    for old in [root, &unpacked] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(old).map_err(|error| error.to_string())?;
    }
    call(Command::new("tar").arg("xf").arg(&base).arg("-C").arg(root))?;
    call(Command::new("dpkg-deb").arg("-x").arg(kernel).arg(&unpacked))?;
    let script = r#"
        cp -a "$1"/usr/lib/modules "$2"/usr/lib/ 2>/dev/null || cp -a "$1"/lib/modules "$2"/usr/lib/
        chroot "$2" depmod "$(ls "$2"/usr/lib/modules)"
        mkdir -p "$1"/first/bin
        cp "$(command -v busybox)" "$1"/first/bin/busybox
        find "$1" -name 'virtio_blk.ko*' -exec sh -c 'case $1 in *.xz) xz -dc "$1" ;; *) cat "$1" ;; esac >"$2"/virtio_blk.ko' - {} "$1"/first \;
        cp "$3"/first.sh "$1"/first/init && chmod 755 "$1"/first/init
        cp "$3"/second.sh "$2"/run-tests && chmod 755 "$2"/run-tests
        cd "$1"/first && find . | cpio -o -H newc --quiet | gzip -1 >../initrd.gz"#;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vm");
    call(Command::new("sh").args(["-euc", script, "-"]).args([&unpacked, root, &scripts]))?;
    let helpers = fs::read_dir(target().join("debug")).map_err(|error| error.to_string())?;
    let helper = |path: &PathBuf| path.file_name().is_some_and(|name| name == "kiln-provider-host");
    let helpers = helpers.filter_map(|entry| Some(entry.ok()?.path())).filter(helper);
    let crates = metadata::root().join("crates");
    for path in programs.iter().cloned().chain(helpers).chain([crates]) {
        let place = root.join(path.parent().and_then(|folder| folder.strip_prefix("/").ok()).unwrap_or(root));
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        call(Command::new("cp").arg("-a").arg(&path).arg(place))?;
    }
    Ok(())
}

/// Runs one program in a machine of its own; whether every test of it passed.
fn boot(folder: &Path, root: &Path, program: &Path) -> Result<bool, String> {
    let disk = folder.join("disk.ext4");
    let _ = fs::remove_file(&disk);
    fs::write(root.join("program"), program.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
    call(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(root).arg(&disk).arg("3G"))?;
    let kernel = folder.join("kernel/boot");
    let mut kernels = fs::read_dir(&kernel).map_err(|error| error.to_string())?;
    let image = kernels.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with("vmlinuz").then_some(path)
    });
    let output = Command::new("timeout")
        .args([SECONDS_MAX, "qemu-system-x86_64"])
        .args(MACHINE)
        .arg("-kernel")
        .arg(image.ok_or("the package holds no kernel")?)
        .arg("-initrd")
        .arg(folder.join("kernel/initrd.gz"))
        .args(["-append", KERNEL_LINE, "-drive"])
        .arg(format!("file={},if=virtio,format=raw,cache=unsafe", disk.display()))
        .output()
        .map_err(|error| format!("cannot run qemu-system-x86_64: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("test ") || line.contains("panicked")) {
        println!("{line}");
    }
    Ok(text.contains("test result: ok."))
}

fn call(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed")) }
}
