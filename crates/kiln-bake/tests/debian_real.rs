//! A real Debian base, through the mirror that this machine's apt uses.

mod fixture;

use std::path::Path;
use std::time::Instant;

use fixture::{causes, copy, debian, image, names, now, quiet, recipe, run, slim, stack};
use kiln_bake::{Baker, BakerOptions, LockOptions, Source};
use kiln_model::recipe::ImageSource;
use kiln_store::Store;

/// dpkg itself finds every package installed and every file as its package has it.
const WHOLE: &str = "dpkg --audit > /tmp/audit; dpkg --verify > /tmp/verify; dpkg -l | tail -n +6 | grep -v ^ii > /tmp/list || true; \
    cat /tmp/audit /tmp/verify /tmp/list; test ! -s /tmp/audit; test ! -s /tmp/verify; test ! -s /tmp/list; rm /tmp/*; \
    test ! -L /usr/bin; test -L /bin; ldconfig -p | grep libc.so.6; getent passwd www-data";

#[test]
fn a_real_base_is_locked_and_baked_and_bakes_to_the_same_digest_again() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("web")).unwrap();
    std::fs::write(source.join("web/server.py"), "print('hello')\n").unwrap();
    let stack = stack(
        Some(debian(None, &["ca-certificates", "python3-minimal"])),
        vec![(
            "web",
            recipe(
                ImageSource::Base(slim()),
                vec![
                    copy("./web", "/app"),
                    run(&["python3", "-m", "py_compile", "/app/server.py"]),
                    run(&["sh", "-ec", WHOLE]),
                ],
            ),
        )],
    );
    let source = Source::Folder(source);
    let bake = |state: &Path, packages: Option<&Path>| {
        let store = Store::open(state).unwrap();
        let baker = Baker::new(store.clone(), BakerOptions::default()).unwrap();
        if let Some(packages) = packages {
            // The second store is empty but for the packages: the mirror need not send them twice.
            for entry in std::fs::read_dir(packages).unwrap().flatten() {
                let target = state.join("store/cache/packages").join(entry.file_name());
                std::fs::hard_link(entry.path(), target).unwrap();
            }
        }
        (store, baker)
    };
    let first = folder.path().join("first");
    let (store, baker) = bake(&first, None);
    let began = Instant::now();
    let options = LockOptions { upgrade: false, now: now() };
    let lock = baker.lock(&stack, None, options, &quiet).unwrap_or_else(|error| panic!("{}", causes(&error)));
    println!("locked in {:?}: {} packages", began.elapsed(), lock.bases[&slim()].packages.len());
    let show = |progress: kiln_bake::Progress| {
        if let kiln_bake::StepState::Finished { elapsed, cached } = progress.state {
            println!(
                "{} {}/{} {} {elapsed:?} {cached}",
                progress.subject, progress.step, progress.steps, progress.what
            );
        }
    };
    let began = Instant::now();
    let images = baker
        .bake(&stack, &lock, &source, &names(&["web"]), &show)
        .unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()));
    println!("baked in {:?}", began.elapsed());
    let began = Instant::now();
    let again = baker.bake(&stack, &lock, &source, &names(&["web"]), &quiet).unwrap();
    println!("baked again in {:?}", began.elapsed());
    assert_eq!(images, again);
    let tree = store.trees.load(&images[&image("web")].tree).unwrap();
    let paths: Vec<String> = tree.iter().map(|(path, _)| path.to_string()).collect();
    assert!(
        paths.iter().any(|path| path == "/app/__pycache__/server.cpython-311.pyc"),
        "{} paths",
        paths.len()
    );
    assert!(paths.iter().any(|path| path == "/etc/ssl/certs/ca-certificates.crt"));

    if let Some(keep) = std::env::var_os("KILN_TEST_LAYOUT") {
        kiln_bake::export_layout(&store, &images[&image("web")].manifest, Path::new(&keep)).unwrap();
    }

    let (_, baker) = bake(&folder.path().join("second"), Some(&first.join("store/cache/packages")));
    let other = baker.bake(&stack, &lock, &source, &names(&["web"]), &quiet).unwrap();
    assert_eq!(images, other, "two empty stores give one digest");
}
