//! Bakes over a small archive of the tests' own: whole, repeated, disturbed.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use fixture::archive::{TestArchive, TestFile, TestPackage, file, package, tiny};
use fixture::{causes, copy, debian, image, names, now, quiet, recipe, run, slim, stack};
use kiln_bake::{BakeError, Baker, BakerOptions, Lock, LockOptions, Progress, Source, StepState};
use kiln_model::ImageName;
use kiln_model::image::Image;
use kiln_model::recipe::{CopyStep, ImageSource, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_store::{Kind, Store, Tree, TreePath};

/// A stack folder, an archive and a store, gone with the value.
struct World {
    folder: tempfile::TempDir,
    archive: TestArchive,
}

type Images = BTreeMap<ImageName, Image>;

impl World {
    fn new(packages: &[TestPackage]) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let archive = TestArchive::new(folder.path());
        archive.publish(packages, |release| release);
        fs::create_dir(folder.path().join("stack")).unwrap();
        Self { folder, archive }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path("stack").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn source(&self) -> Source {
        Source::Folder(self.path("stack"))
    }

    fn options(&self) -> BakerOptions {
        BakerOptions { keyring: self.archive.keyring.clone(), ..BakerOptions::default() }
    }

    fn baker(&self, state: &Path) -> (Store, Baker) {
        let store = Store::open(state).unwrap();
        (store.clone(), Baker::new(store, self.options()).unwrap())
    }

    fn stack(&self, packages: &[&str], steps: Vec<RecipeStep>) -> Stack {
        let base = debian(Some(self.archive.url()), packages);
        stack(Some(base), vec![("web", recipe(ImageSource::Base(slim()), steps))])
    }

    fn lock(&self, stack: &Stack) -> Lock {
        let (_, baker) = self.baker(&self.path("lock-state"));
        let options = LockOptions { upgrade: false, now: now() };
        baker.lock(stack, None, options, &quiet).unwrap_or_else(|error| panic!("{}", causes(&error)))
    }

    fn bake_in(&self, state: &Path, stack: &Stack, lock: &Lock) -> Result<(Tree, Image), BakeError> {
        let (store, baker) = self.baker(state);
        let images = baker.bake(stack, lock, &self.source(), &names(&["web"]), &quiet)?;
        let image = images[&image("web")].clone();
        Ok((store.trees.load(&image.tree).unwrap(), image))
    }

    fn bake(&self, stack: &Stack) -> Result<(Tree, Image), BakeError> {
        self.bake_in(&self.path("state"), stack, &self.lock(stack))
    }

    /// Bakes the image of these steps over the tiny system.
    fn bake_steps(&self, steps: Vec<RecipeStep>) -> Result<(Tree, Image), BakeError> {
        self.bake(&self.stack(&[], steps))
    }

    fn text(&self, tree: &Tree, path: &str) -> String {
        let store = Store::open(self.path("state")).unwrap();
        let Some(Kind::File { digest, .. }) = tree.get(&at(path)).map(|entry| &entry.kind) else {
            panic!("{path} is no file")
        };
        String::from_utf8(store.objects.read_verified(digest, 1 << 20).unwrap()).unwrap()
    }
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

fn has(tree: &Tree, path: &str) -> bool {
    tree.get(&at(path)).is_some()
}

fn failure(done: Result<(Tree, Image), BakeError>) -> BakeError {
    match done {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}

/// Packages whose scripts do what makes real systems differ from bake to bake.
fn packages() -> Vec<TestPackage> {
    let postinst = "#!/bin/sh\nset -e\ndate > /var/log/hello.log\ndate +%N > /etc/machine-id\necho made > /etc/made\n\
        rm /usr/share/hello/gone\ncat /proc/self/status > /run/status\nmkdir -p /var/cache/apt\ndate > /var/cache/apt/x\n";
    let files = vec![
        TestFile::Dir("./usr/share/hello/".into(), 0o755),
        file("./usr/share/hello/a", "a"),
        file("./usr/share/hello/gone", "x"),
        file("./etc/hello.conf", "conf\n"),
        TestFile::HardLink("./usr/share/hello/b".into(), "./usr/share/hello/a".into()),
    ];
    vec![
        tiny(),
        package("hello", "2.1", "Depends: hello-data\n", files)
            .control("postinst", postinst)
            .control("conffiles", "/etc/hello.conf\n")
            .compressed("zst"),
        package("hello-data", "1", "Multi-Arch: same\n", vec![file("./lib/hello/data", "data")]),
    ]
}

#[test]
fn a_base_is_unpacked_configured_and_normalised() {
    let world = World::new(&packages());
    let (tree, _) = world
        .bake(&world.stack(&["hello"], vec![]))
        .unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    assert_eq!(world.text(&tree, "etc/made"), "made\n");
    assert_eq!(world.text(&tree, "etc/machine-id"), "");
    for gone in [
        "usr/share/hello/gone",
        "var/log/hello.log",
        "var/cache/apt/x",
        "run/status",
        ".kiln",
        "usr/sbin/policy-rc.d",
    ] {
        assert!(!has(&tree, gone), "{gone}");
    }
    assert!(has(&tree, "usr/lib/hello/data"), "what a package brings in /lib lands in /usr/lib");
    assert_eq!(
        tree.inode(&at("usr/share/hello/a")),
        tree.inode(&at("usr/share/hello/b")),
        "hard links stay linked"
    );
    let status = world.text(&tree, "var/lib/dpkg/status");
    assert!(status.contains("Package: hello\nStatus: install ok unpacked\n"), "{status}");
    assert!(status.contains("Conffiles:\n /etc/hello.conf b9a771b420047cfaa3543e66c78f44f6\n"), "{status}");
    let arch = kiln_bake::debian::ARCH;
    assert!(has(&tree, &format!("var/lib/dpkg/info/hello-data:{arch}.list")));
    assert!(world.text(&tree, "var/lib/dpkg/info/hello.list").contains("/etc/hello.conf\n"));
}

#[test]
fn a_bake_differs_in_nothing_on_another_file_system_with_another_umask_host_name_and_processor() {
    let world = World::new(&packages());
    world.write("web/server", "#!/bin/sh\n");
    let stack = world.stack(&["hello"], steps_of_the_inner_bake());
    let lock = world.lock(&stack);
    fs::write(world.path("kiln.lock"), lock.to_string()).unwrap();
    let (_, image) = world.bake_in(&world.path("state"), &stack, &lock).unwrap();

    let tmpfs = world.path("other-fs");
    fs::create_dir(&tmpfs).unwrap();
    let script = "mount -t tmpfs -o size=256m kiln-test \"$KILN_TEST_STATE\" && hostname elsewhere && umask 077 && \
        cp -r \"$KILN_TEST_WORLD/stack\" \"$KILN_TEST_STATE/stack\" && exec taskset -c 0 \"$@\"";
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--uts", "sh", "-c", script, "sh"])
        .arg(exe)
        .args(["--exact", "the_inner_bake", "--ignored", "--nocapture"])
        .env("KILN_TEST_STATE", &tmpfs)
        .env("KILN_TEST_WORLD", world.folder.path())
        .env("TZ", "Pacific/Kiritimati")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("manifest ")).map(str::to_owned);
    assert_eq!(line, Some(image.manifest.to_string()), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn steps_of_the_inner_bake() -> Vec<RecipeStep> {
    vec![
        copy("web", "/app"),
        run(&["sh", "-c", "echo $SOURCE_DATE_EPOCH $(date +%s >/dev/null) > /app/x; rm /usr/share/hello/a"]),
    ]
}

#[test]
#[ignore = "runs inside three other tests here, which set its surroundings"]
fn the_inner_bake() {
    let variable = |name| PathBuf::from(std::env::var_os(name).expect("the outer test sets it"));
    let (world, state) = (variable("KILN_TEST_WORLD"), variable("KILN_TEST_STATE"));
    let lock = Lock::parse(&fs::read_to_string(world.join("kiln.lock")).unwrap()).unwrap();
    let base = debian(Some(format!("file://{}", world.join("mirror").display())), &["hello"]);
    let images = vec![("web", recipe(ImageSource::Base(slim()), steps_of_the_inner_bake()))];
    let baker = Baker::new(Store::open(state.join("state")).unwrap(), BakerOptions::default()).unwrap();
    let source = Source::Folder(state.join("stack"));
    let images: Images = baker
        .bake(&stack(Some(base), images), &lock, &source, &names(&["web"]), &quiet)
        .unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    println!("\nmanifest {}", images[&image("web")].manifest);
}

#[test]
fn a_killed_bake_leaves_nothing_that_the_next_one_trips_over() {
    let world = World::new(&packages());
    world.write("web/server", "#!/bin/sh\n");
    let stack = world.stack(&["hello"], steps_of_the_inner_bake());
    let lock = world.lock(&stack);
    fs::write(world.path("kiln.lock"), lock.to_string()).unwrap();
    let (_, expected) = world.bake_in(&world.path("undisturbed"), &stack, &lock).unwrap();
    // Killed ever later, until one comes through: at the fetch, the unpacking, in the sandbox, between the steps.
    for pause in (0..).map(|round| Duration::from_millis(40 * round)) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_inner_bake", "--ignored"])
            .env("KILN_TEST_STATE", world.folder.path())
            .env("KILN_TEST_WORLD", world.folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(pause);
        let through = child.try_wait().unwrap().is_some_and(|status| status.success());
        let _ = child.kill();
        child.wait().unwrap();
        if through {
            break;
        }
    }
    let (_, image) = world.bake_in(&world.path("state"), &stack, &lock).unwrap();
    assert_eq!(image, expected);
    assert_eq!(fs::read_dir(world.path("state/store/cache/work")).unwrap().count(), 0);
}

#[test]
fn a_second_bake_does_nothing_and_a_changed_file_repeats_only_what_follows() {
    let world = World::new(&[tiny()]);
    world.write("a", "1");
    world.write("b", "1");
    let stack =
        world.stack(&[], vec![copy("a", "/a"), copy("b", "/b"), run(&["sh", "-c", "cat /a /b > /c"])]);
    let lock = world.lock(&stack);
    let (store, baker) = world.baker(&world.path("state"));
    let bake = || {
        let cached = Mutex::new(Vec::new());
        let report = |progress: Progress| {
            if let StepState::Finished { cached: hit, .. } = progress.state {
                cached.lock().unwrap().push((progress.what, hit));
            }
        };
        let images = baker.bake(&stack, &lock, &world.source(), &names(&["web"]), &report).unwrap();
        let missed: Vec<String> =
            cached.into_inner().unwrap().into_iter().filter(|(_, hit)| !hit).map(|(what, _)| what).collect();
        (images[&image("web")].clone(), missed)
    };
    let (first, _) = bake();
    let (again, missed) = bake();
    assert_eq!((again, missed.len()), (first.clone(), 0));
    world.write("b", "2");
    let (changed, missed) = bake();
    assert_ne!(changed.manifest, first.manifest);
    assert_eq!(missed, ["copy b /b", "run sh -c cat /a /b > /c"]);
    let tree = store.trees.load(&changed.tree).unwrap();
    assert_eq!(world.text(&tree, "c"), "12");
}

#[test]
fn two_bakes_at_once_give_one_image() {
    let world = World::new(&packages());
    let stack = world.stack(&["hello"], vec![run(&["sh", "-c", "echo x > /x"])]);
    let lock = world.lock(&stack);
    let state = world.path("state");
    let images: Vec<Image> = std::thread::scope(|scope| {
        let bake = || world.bake_in(&state, &stack, &lock).map(|(_, image)| image);
        let threads = [scope.spawn(bake), scope.spawn(bake)];
        threads
            .map(|thread| thread.join().unwrap().unwrap_or_else(|error| panic!("{}", causes(&error))))
            .to_vec()
    });
    assert_eq!(images[0], images[1]);
}

#[test]
fn two_processes_that_bake_into_one_store_give_one_image() {
    let world = World::new(&packages());
    world.write("web/server", "#!/bin/sh\n");
    let stack = world.stack(&["hello"], steps_of_the_inner_bake());
    let lock = world.lock(&stack);
    fs::write(world.path("kiln.lock"), lock.to_string()).unwrap();
    let (_, expected) = world.bake_in(&world.path("alone"), &stack, &lock).unwrap();
    let children = [(); 3].map(|()| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_inner_bake", "--ignored", "--nocapture"])
            .env("KILN_TEST_STATE", world.folder.path())
            .env("KILN_TEST_WORLD", world.folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    });
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("\nmanifest {}\n", expected.manifest)), "{text}");
    }
    assert_eq!(fs::read_dir(world.path("state/store/cache/work")).unwrap().count(), 0);
}

/// Images over the tiny system, each with one step, and what baking them all came to.
fn bake_beside(
    world: &World,
    steps: &[(&str, &str)],
    report: &(dyn Fn(Progress) + Sync),
) -> Result<Images, BakeError> {
    let base = debian(Some(world.archive.url()), &[]);
    let image = |script: &str| recipe(ImageSource::Base(slim()), vec![run(&["sh", "-c", script])]);
    let stack = stack(Some(base), steps.iter().map(|(name, script)| (*name, image(script))).collect());
    let (_, baker) = world.baker(&world.path("state"));
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    baker.bake(&stack, &world.lock(&stack), &world.source(), &fixture::names(&names), report)
}

#[test]
fn a_failure_calls_off_what_is_made_beside_it() {
    let world = World::new(&[tiny()]);
    let begun = (Mutex::new(false), std::sync::Condvar::new());
    let report = |progress: Progress| {
        if progress.state != StepState::Started {
            return;
        }
        let (slow, changed) = &begun;
        match progress.subject.as_str() {
            "image slow" => {
                *slow.lock().unwrap() = true;
                changed.notify_all();
            }
            // On one processor nothing is beside it, and it fails first.
            "image bad" => {
                let pause = Duration::from_secs(5);
                drop(changed.wait_timeout_while(slow.lock().unwrap(), pause, |slow| !*slow).unwrap());
            }
            _ => {}
        }
    };
    let steps = [("bad", "echo why; exit 3"), ("slow", "while :; do :; done")];
    let error = bake_beside(&world, &steps, &report).unwrap_err();
    assert!(error.to_string().starts_with("image bad, step 1 of 1"), "{error}");
    assert_eq!(error.log(), "why\n");
    assert_eq!(fs::read_dir(world.path("state/store/cache/work")).unwrap().count(), 0);
}

#[test]
fn a_step_that_two_images_begin_with_is_done_once() {
    let world = World::new(&[tiny()]);
    let done = Mutex::new(Vec::new());
    let report = |progress: Progress| {
        if let StepState::Finished { cached, .. } = progress.state
            && progress.subject.starts_with("image")
        {
            done.lock().unwrap().push(cached);
        }
    };
    let same = "date > /x; read x < /proc/sys/kernel/random/uuid; echo $x > /random";
    let images = bake_beside(&world, &[("one", same), ("other", same)], &report)
        .unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    assert_eq!(images[&image("one")], images[&image("other")]);
    let mut done = done.into_inner().unwrap();
    done.sort_unstable();
    assert_eq!(done, [false, true]);
}

#[test]
fn a_step_may_remove_replace_and_link() {
    let world = World::new(&packages());
    let script = "rm -r /usr/share/hello; mkdir /usr/share/hello; echo new > /usr/share/hello/new; \
        echo one > /one; ln /one /two; rm /etc/hello.conf; mkdir /etc/hello.conf; chmod 4755 /usr/bin/cat";
    let stack = world.stack(&["hello"], vec![run(&["sh", "-c", script])]);
    let (tree, _) = world.bake(&stack).unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    assert!(has(&tree, "usr/share/hello/new") && !has(&tree, "usr/share/hello/a"));
    assert_eq!(tree.inode(&at("one")), tree.inode(&at("two")));
    assert!(tree.get(&at("etc/hello.conf")).unwrap().is_dir());
    assert_eq!(tree.get(&at("usr/bin/cat")).unwrap().meta.mode, 0o4755);
    let clamped = world.lock(&stack).bases[&slim()].locked_at as i64;
    assert!(tree.iter().all(|(_, entry)| entry.meta.mtime.secs <= clamped && entry.meta.mtime.nanos == 0));
}

#[test]
fn a_step_runs_as_its_user_in_its_folder_with_its_environment() {
    let world = World::new(&[tiny()]);
    let step = RunStep {
        argv: vec!["sh".into(), "-c".into(), "echo $HOME $COLOUR $PWD > out".into()],
        env: [("COLOUR".into(), "red".into())].into(),
        workdir: "/tmp".into(),
        user: "www-data".into(),
        network: false,
    };
    let (tree, _) = world
        .bake_steps(vec![RecipeStep::Run(step)])
        .unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    assert_eq!(world.text(&tree, "tmp/out"), "/var/www red /tmp\n");
    assert_eq!(tree.get(&at("tmp/out")).unwrap().meta.uid, 33);
}

#[test]
fn scripts_are_told_that_no_init_runs() {
    let script = "#!/bin/sh\nif ischroot; then echo none > /etc/init-is; fi\n";
    let asking = package("asking", "1", "", vec![]).control("postinst", script);
    let world = World::new(&[tiny(), asking]);
    let (tree, _) = world
        .bake(&world.stack(&["asking"], vec![]))
        .unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    assert_eq!(world.text(&tree, "etc/init-is"), "none\n");
    assert!(!has(&tree, ".kiln"));
}

#[test]
fn scripts_and_steps_see_the_locks_time_and_the_image_holds_nothing_of_how() {
    let dated = package("dated", "1", "", vec![file("./usr/share/dated", "x")])
        .control("postinst", "#!/bin/sh\ndate +%s > /etc/configured\n");
    let world = World::new(&[tiny(), dated]);
    // The step touches all that the clock is made of, so that it is among what changed.
    let touch = "date +%s > /stepped; chmod 700 /.kiln /.kiln/clock.so; rm -r /.kiln/clock.so; \
        cat /etc/ld.so.preload > /x; echo /lib/own.so >> /etc/ld.so.preload";
    let own = run(&["sh", "-c", "while read line; do echo $line; done < /etc/ld.so.preload > /seen"]);
    let stack = world.stack(&["dated"], vec![run(&["sh", "-c", touch]), own]);
    let lock = world.lock(&stack);
    let baked = world.bake_in(&world.path("state"), &stack, &lock);
    let (tree, _) = baked.unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    let locked_at = format!("{}\n", lock.bases[&slim()].locked_at);
    assert_eq!(world.text(&tree, "etc/configured"), locked_at);
    assert_eq!(world.text(&tree, "stepped"), locked_at);
    assert_eq!(world.text(&tree, "x"), "/.kiln/clock.so\n");
    assert_eq!(world.text(&tree, "seen"), "/.kiln/clock.so\n/lib/own.so\n");
    assert!(!has(&tree, ".kiln"));
    assert_eq!(world.text(&tree, "etc/ld.so.preload"), "/lib/own.so\n");

    let stack = world.stack(&["dated"], vec![run(&["date"])]);
    let (tree, _) = world.bake_in(&world.path("state"), &stack, &lock).unwrap();
    assert!(!has(&tree, ".kiln") && !has(&tree, "etc/ld.so.preload"));
}

#[test]
fn a_step_with_network_sees_the_machines_time_and_makes_its_image_unproven() {
    let world = World::new(&[tiny()]);
    let RecipeStep::Run(mut step) = run(&["sh", "-c", "date +%s > /at"]) else { unreachable!() };
    step.network = true;
    let mut stack = world.stack(&[], vec![RecipeStep::Run(step)]);
    stack.images.insert(image("other"), recipe(ImageSource::Image(image("web")), vec![]));
    let (store, baker) = world.baker(&world.path("state"));
    let lock = world.lock(&stack);
    let bake = || baker.bake(&stack, &lock, &world.source(), &names(&["web", "other"]), &quiet);
    let images = bake().unwrap_or_else(|error| panic!("{}: {}", causes(&error), error.log()));
    let reason = ["`run with network: sh -c date +%s > /at` could reach the network"];
    for name in ["web", "other"] {
        assert_eq!(images[&image(name)].unproven, reason, "what is made from an unproven image is unproven");
    }
    assert_eq!(bake().unwrap(), images, "what was baked before is told of again");
    assert_eq!(store.images.get(&images[&image("web")].manifest).unwrap().unproven, reason);
    let tree = store.trees.load(&images[&image("web")].tree).unwrap();
    let at: u64 = world.text(&tree, "at").trim().parse().unwrap();
    assert!(at.abs_diff(now().0 / 1000) < 3600, "{at}");
}

#[test]
fn a_corrupt_cached_package_is_fetched_again() {
    let world = World::new(&packages());
    let stack = world.stack(&["hello"], vec![]);
    let lock = world.lock(&stack);
    let (_, first) = world.bake_in(&world.path("state"), &stack, &lock).unwrap();
    let cache = world.path("state/store/cache");
    for entry in fs::read_dir(cache.join("packages")).unwrap().flatten() {
        let mut bytes = fs::read(entry.path()).unwrap();
        bytes[100] ^= 1;
        fs::write(entry.path(), bytes).unwrap();
    }
    fs::remove_dir_all(cache.join("steps")).unwrap();
    let (_, second) = world.bake_in(&world.path("state"), &stack, &lock).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_package_that_is_not_what_was_locked_is_refused() {
    let world = World::new(&packages());
    let stack = world.stack(&["hello"], vec![]);
    let lock = world.lock(&stack);
    let deb = world.archive.root.join(&lock.bases[&slim()].packages[0].path);
    let mut bytes = fs::read(&deb).unwrap();
    bytes[70] ^= 1;
    fs::write(&deb, &bytes).unwrap();
    let error = failure(world.bake_in(&world.path("state"), &stack, &lock));
    assert!(causes(&error).contains("package `hello` can't be fetched"), "{}", causes(&error));
    assert!(causes(&error).contains("is not what the index promised"), "{}", causes(&error));
    fs::remove_file(&deb).unwrap();
    let error = failure(world.bake_in(&world.path("state"), &stack, &lock));
    assert!(error.hint().unwrap().contains("kiln lock --upgrade"), "{error}");
}

#[test]
fn a_stale_lock_is_refused_with_what_to_run() {
    let world = World::new(&packages());
    let lock = world.lock(&world.stack(&[], vec![]));
    let error = failure(world.bake_in(&world.path("state"), &world.stack(&["hello"], vec![]), &lock));
    assert_eq!(error.to_string(), "base `slim` was locked for other packages");
    assert!(error.hint().unwrap().contains("kiln lock"));
}

#[test]
fn a_failing_maintainer_script_shows_its_output() {
    let bad = package("bad", "1", "", vec![]).control("postinst", "#!/bin/sh\necho reason >&2\nexit 3\n");
    let world = World::new(&[tiny(), bad]);
    let error = failure(world.bake(&world.stack(&["bad"], vec![])));
    assert!(error.log().contains("reason"), "{}: {}", causes(&error), error.log());
    assert!(error.to_string().starts_with("base slim, step 3 of 4"), "{error}");
}

#[test]
fn hostile_packages_are_refused() {
    let cases = [
        (TestFile::Raw(b"./../../etc/evil".to_vec(), b"x".to_vec()), "leads out"),
        (TestFile::Device("./dev/sda".into()), "device"),
        (TestFile::HardLink("./x".into(), "../../etc/passwd".into()), "leads out"),
    ];
    for (file, text) in cases {
        let world = World::new(&[tiny(), package("evil", "1", "", vec![file])]);
        let error = failure(world.bake(&world.stack(&["evil"], vec![])));
        assert!(causes(&error).contains(text), "{}", causes(&error));
    }
    // A link out of the tree is data: what is put through it stays in the tree.
    let through =
        vec![TestFile::Symlink("./esc".into(), "../../../opt".into()), file("./esc/kiln-evil", "x")];
    let world = World::new(&[tiny(), package("evil", "1", "", through)]);
    let (tree, _) = world.bake(&world.stack(&["evil"], vec![])).unwrap();
    assert!(has(&tree, "opt/kiln-evil") && !Path::new("/opt/kiln-evil").exists());
}

#[test]
fn two_packages_with_one_file_conflict_unless_one_replaces_the_other() {
    let both = |fields: &str| {
        let a = package("aa", "1", "", vec![file("./usr/share/x", "from aa")]);
        let b = package("bb", "1", fields, vec![file("./usr/share/x", "from bb")]);
        World::new(&[tiny(), a, b])
    };
    let world = both("");
    let error = failure(world.bake(&world.stack(&["aa", "bb"], vec![])));
    assert!(causes(&error).contains("`bb` and `aa` both bring /usr/share/x"), "{}", causes(&error));
    let world = both("Replaces: aa\n");
    let (tree, _) = world.bake(&world.stack(&["aa", "bb"], vec![])).unwrap();
    assert_eq!(world.text(&tree, "usr/share/x"), "from bb");
}

#[test]
fn copies_follow_dockers_rules() {
    let world = World::new(&[tiny()]);
    for name in ["web/a.txt", "web/sub/b.txt", "web/skip.log", "one", "tool"] {
        world.write(name, name);
    }
    world.write(".kilnignore", "*.log\n");
    std::os::unix::fs::symlink("a.txt", world.path("stack/web/link")).unwrap();
    fs::set_permissions(world.path("stack/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let owned = CopyStep {
        from: "tool".into(),
        to: "/opt/run".into(),
        owner: "www-data".into(),
        mode: Some(0o640),
        exclude: vec![],
    };
    let steps = vec![
        copy("./web", "/app"),
        copy("one", "/renamed"),
        copy("one", "/folder/"),
        copy("one", "/etc"),
        copy("web/**/*.txt", "/flat"),
        copy("tool", "/bin/tool"),
        RecipeStep::Copy(owned),
    ];
    let (tree, _) = world.bake_steps(steps).unwrap_or_else(|error| panic!("{}", causes(&error)));
    for there in [
        "app/a.txt",
        "app/sub/b.txt",
        "renamed",
        "folder/one",
        "etc/one",
        "flat/a.txt",
        "flat/b.txt",
        "usr/bin/tool",
    ] {
        assert!(has(&tree, there), "{there}");
    }
    assert!(!has(&tree, "app/skip.log"), "ignored");
    assert!(
        matches!(&tree.get(&at("app/link")).unwrap().kind, Kind::Symlink { target } if target == b"a.txt")
    );
    assert_eq!(tree.get(&at("usr/bin/tool")).unwrap().meta.mode, 0o755, "only the executable bit is taken");
    let owned = &tree.get(&at("opt/run")).unwrap().meta;
    assert_eq!((owned.uid, owned.gid, owned.mode), (33, 33, 0o640));
}

#[test]
fn a_copy_can_not_leave_the_stack_folder() {
    let world = World::new(&[tiny()]);
    fs::write(world.path("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(world.folder.path(), world.path("stack/out")).unwrap();
    for from in ["../secret", "/etc/passwd", "a/../../secret", "out/secret"] {
        let error = failure(world.bake_steps(vec![copy(from, "/x")]));
        let text = causes(&error);
        assert!(
            text.contains("leaves the stack folder") || text.contains("is not in the stack folder"),
            "{from}: {text}"
        );
    }
}

#[test]
fn a_source_that_is_missing_comes_with_what_was_meant() {
    let world = World::new(&[tiny()]);
    world.write("server.py", "x");
    world.write("noise.log", "x");
    world.write(".kilnignore", "*.log\n");
    let error = failure(world.bake_steps(vec![copy("sever.py", "/x")]));
    assert_eq!(error.hint().unwrap(), "did you mean `server.py`?");
    let error = failure(world.bake_steps(vec![copy("noise.log", "/x")]));
    assert!(error.hint().unwrap().contains(".kilnignore"), "{error}");
}

#[test]
fn a_step_that_hangs_or_is_called_off_ends_and_leaves_nothing() {
    let world = World::new(&[tiny()]);
    let stack = world.stack(&[], vec![run(&["sh", "-c", "while :; do :; done"])]);
    let lock = world.lock(&stack);
    let store = Store::open(world.path("state")).unwrap();
    let mut options = world.options();
    let baker = Baker::new(store.clone(), options.clone()).unwrap();
    baker.bake(&world_without_steps(&world), &lock, &world.source(), &names(&["web"]), &quiet).unwrap();
    options.step_timeout = Duration::from_millis(300);
    let baker = Baker::new(store.clone(), options.clone()).unwrap();
    let error = baker.bake(&stack, &lock, &world.source(), &names(&["web"]), &quiet).unwrap_err();
    assert!(causes(&error).contains("did not end within"), "{}", causes(&error));
    options.step_timeout = Duration::from_secs(600);
    let cancel = options.cancel.clone();
    let baker = Baker::new(store, options).unwrap();
    let report = |progress: Progress| {
        if progress.what.starts_with("run") {
            cancel.set();
        }
    };
    let error = baker.bake(&stack, &lock, &world.source(), &names(&["web"]), &report).unwrap_err();
    assert!(matches!(error, BakeError::Cancelled), "{error}");
    assert_eq!(fs::read_dir(world.path("state/store/cache/work")).unwrap().count(), 0);
}

fn world_without_steps(world: &World) -> Stack {
    world.stack(&[], vec![])
}

#[test]
fn a_full_disk_is_said_so_and_leaves_nothing_half_visible() {
    let world = World::new(&packages());
    let stack = world.stack(&["hello"], vec![]);
    let lock = world.lock(&stack);
    let state = world.path("small");
    fs::create_dir(&state).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "kiln-test"])
        .arg(&state)
        .status()
        .unwrap();
    assert!(mounted.success());
    let done =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.bake_in(&state, &stack, &lock)));
    let left = fs::read_dir(state.join("store/cache/work")).map(Iterator::count);
    Command::new("umount").arg(&state).status().unwrap();
    let error = failure(done.unwrap());
    assert!(error.hint().unwrap().contains("free some space"), "{}", causes(&error));
    assert!(!error.is_permanent());
    assert_eq!(left.unwrap(), 0);
    world.bake_in(&world.path("state"), &stack, &lock).expect("with room it bakes");
}

#[test]
fn an_image_from_scratch_or_from_another_image_needs_no_lock() {
    let world = World::new(&[]);
    world.write("hello", "hi");
    let mut base = recipe(ImageSource::Scratch, vec![copy("hello", "/hello")]);
    base.config.command = vec!["/hello".into()];
    let child = recipe(ImageSource::Image(image("base")), vec![]);
    let stack = stack(None, vec![("base", base), ("child", child)]);
    let (store, baker) = world.baker(&world.path("state"));
    let images =
        baker.bake(&stack, &Lock::default(), &world.source(), &names(&["base", "child"]), &quiet).unwrap();
    assert_eq!(images[&image("base")], images[&image("child")]);
    assert_eq!(images[&image("child")].config.command, ["/hello"]);
    assert_eq!(images[&image("child")].size_bytes, 2);
    let manifest = store.blobs.read_verified(&images[&image("child")].manifest).unwrap();
    assert!(String::from_utf8(manifest).unwrap().contains("layer.v1.tar+zstd"));
}

#[test]
fn images_that_are_made_from_each_other_are_refused() {
    let world = World::new(&[]);
    let of = |name: &str| recipe(ImageSource::Image(image(name)), vec![]);
    let stack = stack(None, vec![("a", of("b")), ("b", of("a"))]);
    let (_, baker) = world.baker(&world.path("state"));
    let error = baker.bake(&stack, &Lock::default(), &world.source(), &names(&["a"]), &quiet).unwrap_err();
    assert!(matches!(error, BakeError::Circle(_)), "{error}");
}
