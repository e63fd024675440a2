//! A stack folder and a store in which Dockerfiles are baked. Their base is an image of one static busybox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_bake::{
    BakeError, Baker, BakerOptions, Lock, LockError, LockOptions, Progress, Secrets, Source, StepState,
};
use kiln_bake::{export_layout, outside_inputs};
use kiln_model::image::Image;
use kiln_model::recipe::{CopyStep, DockerfileSource, ImageSource, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_store::{Entry, Kind, Store, Tree, TreePath};
use serde_json::Value;

use crate::fixture::{causes, image, names, recipe, stack};

/// One static program that is a whole system; Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// A stack folder and a store, gone with the value.
pub(crate) struct Kitchen {
    folder: Arc<tempfile::TempDir>,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Dish {
    /// Where the store is: it goes with the last of both.
    _folder: Arc<tempfile::TempDir>,
    pub(crate) store: Store,
    pub(crate) image: Image,
    pub(crate) tree: Tree,
    /// The `config` of the OCI image's config.
    pub(crate) config: Value,
    /// All of the OCI image's config.
    pub(crate) whole: Value,
}

/// How an image has its Dockerfile.
pub(crate) fn dockerfile(path: &str) -> DockerfileSource {
    DockerfileSource {
        path: path.into(),
        context: None,
        target: None,
        args: BTreeMap::new(),
        contexts: BTreeMap::from([("os".into(), ImageSource::Image(image("os")))]),
        secrets: Default::default(),
        ssh: false,
        network: false,
    }
}

pub(crate) fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

impl Kitchen {
    pub(crate) fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir_in("/var/tmp").unwrap());
        let kitchen = Self { folder };
        let busybox = fs::read(BUSYBOX).expect("these tests need Debian's busybox-static");
        kitchen.put("os/bin/busybox", &busybox, 0o755);
        kitchen.put(
            "os/etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n",
            0o644,
        );
        kitchen.put("os/etc/group", b"root:x:0:\napp:x:1001:\nextra:x:50:app\n", 0o644);
        for path in
            ["os/usr/bin/.keep", "os/usr/sbin/.keep", "os/sbin/.keep", "os/var/.keep", "os/root/.keep"]
        {
            kitchen.put(path, b"", 0o644);
        }
        kitchen
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("stack").join(name)
    }

    /// Writes a file of the stack folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        self.put(name, text.as_bytes(), 0o644)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8], mode: u32) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn link(&self, name: &str, target: &str) -> &Self {
        symlink(target, self.path(name)).unwrap();
        self
    }

    /// The image of busybox.
    fn os() -> kiln_model::recipe::ImageRecipe {
        let copy = CopyStep {
            from: "os".into(),
            to: "/".into(),
            owner: String::new(),
            mode: None,
            exclude: vec![".keep".into()],
        };
        let script = "/bin/busybox --install -s && mkdir -p /tmp /home/app && chmod 1777 /tmp && chown 1000:1001 /home/app";
        let run = RunStep {
            argv: vec!["/bin/busybox".into(), "sh".into(), "-ec".into(), script.into()],
            env: BTreeMap::new(),
            workdir: String::new(),
            user: String::new(),
            network: false,
        };
        let mut os = recipe(ImageSource::Scratch, vec![RecipeStep::Copy(copy), RecipeStep::Run(run)]);
        os.config.env.insert("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into());
        os
    }

    pub(crate) fn stack(source: DockerfileSource) -> Stack {
        let web = recipe(ImageSource::Dockerfile(Box::new(source)), vec![]);
        stack(None, vec![("os", Self::os()), ("web", web)])
    }

    /// Bakes a stack, and tells its steps: the words, and whether they were found.
    pub(crate) fn bake_stack(&self, stack: &Stack) -> (Result<Dish, BakeError>, Vec<(String, bool)>) {
        self.bake_in(stack, &self.state())
    }

    pub(crate) fn bake_in(
        &self,
        stack: &Stack,
        state: &Path,
    ) -> (Result<Dish, BakeError>, Vec<(String, bool)>) {
        self.bake_by(stack, &Lock::default(), state, BakerOptions::default())
    }

    /// Bakes with secrets.
    pub(crate) fn bake_with_secrets(
        &self,
        stack: &Stack,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Dish, BakeError> {
        let options = BakerOptions { secrets, ..BakerOptions::default() };
        self.bake_by(stack, &Lock::default(), &self.state(), options).0
    }

    /// Bakes with an SSH agent.
    pub(crate) fn bake_with_agent(&self, stack: &Stack, agent: Option<PathBuf>) -> Result<Dish, BakeError> {
        let options = BakerOptions { ssh_agent: agent, ..BakerOptions::default() };
        self.bake_by(stack, &Lock::default(), &self.state(), options).0
    }

    /// Locks what the Dockerfile in `web` adds from outside.
    pub(crate) fn lock(&self, old: Option<&Lock>, upgrade: bool) -> Result<Lock, LockError> {
        let (stack, folder) = (Self::stack(dockerfile("web")), self.folder.path().join("stack"));
        let outside = outside_inputs(&stack, &folder, &names(&["web"])).unwrap();
        let baker = Baker::new(Store::open(self.state()).unwrap(), BakerOptions::default()).unwrap();
        let options = LockOptions { upgrade, now: kiln_model::Timestamp(0) };
        let urls = baker.lock_urls(&outside.urls, old, options, &|_| {})?;
        let commits = baker.lock_repositories(&outside.repositories, old, options, &|_| {})?;
        Ok(Lock { urls, commits, ..Lock::default() })
    }

    /// The same in another store, where nothing is.
    pub(crate) fn bake_locked_in(&self, lock: &Lock, state: &str) -> Result<Dish, BakeError> {
        let state = self.folder.path().join(state);
        self.bake_by(&Self::stack(dockerfile("web")), lock, &state, BakerOptions::default()).0
    }

    /// Bakes the Dockerfile in `web` with what is locked.
    pub(crate) fn bake_locked(&self, lock: &Lock) -> Result<Dish, BakeError> {
        self.bake_by(&Self::stack(dockerfile("web")), lock, &self.state(), BakerOptions::default()).0
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn bake_by(
        &self,
        stack: &Stack,
        lock: &Lock,
        state: &Path,
        options: BakerOptions,
    ) -> (Result<Dish, BakeError>, Vec<(String, bool)>) {
        let store = Store::open(state).unwrap();
        let baker = Baker::new(store.clone(), options).unwrap();
        let steps = std::sync::Mutex::new(Vec::new());
        let tell = |progress: Progress| {
            if let StepState::Finished { cached, .. } = progress.state
                && progress.subject.starts_with("image web")
            {
                steps.lock().unwrap().push((progress.what, cached));
            }
        };
        let source = Source::Folder(self.folder.path().join("stack"));
        let images = baker.bake(stack, lock, &source, &names(&["web"]), &tell);
        let dish = images
            .map(|mut images| Dish::new(self.folder.clone(), store, images.remove(&image("web")).unwrap()));
        (dish, steps.into_inner().unwrap())
    }

    /// Bakes one image of a stack, and writes it into a folder in OCI's layout.
    pub(crate) fn export(&self, stack: &Stack, name: &str, folder: &Path) {
        let store = Store::open(self.folder.path().join("state")).unwrap();
        let baker = Baker::new(store.clone(), BakerOptions::default()).unwrap();
        let source = Source::Folder(self.folder.path().join("stack"));
        let images = baker.bake(stack, &Lock::default(), &source, &names(&[name]), &|_| {}).unwrap();
        export_layout(&store, &images[&image(name)].manifest, folder).unwrap();
    }

    pub(crate) fn try_bake(&self, source: DockerfileSource) -> Result<Dish, BakeError> {
        self.bake_stack(&Self::stack(source)).0
    }

    /// Bakes the Dockerfile in `web`.
    pub(crate) fn bake(&self) -> Dish {
        self.bake_with(|_| {})
    }

    pub(crate) fn bake_with(&self, change: impl FnOnce(&mut DockerfileSource)) -> Dish {
        let mut source = dockerfile("web");
        change(&mut source);
        self.try_bake(source).unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()))
    }

    /// Bakes a text as `web/Dockerfile`.
    pub(crate) fn of(&self, text: &str) -> Dish {
        self.write("web/Dockerfile", text).bake()
    }

    /// Bakes a text that is refused, and returns why, with its causes and what to do.
    pub(crate) fn refused(&self, text: &str) -> String {
        self.write("web/Dockerfile", text);
        match self.try_bake(dockerfile("web")) {
            Ok(_) => panic!("it should have been refused:\n{text}"),
            Err(BakeError::Dockerfile { problems }) => {
                let line = |problem: &kiln_bake::DockerfileProblem| match &problem.help {
                    Some(help) => format!("{problem} ({help})"),
                    None => problem.to_string(),
                };
                problems.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("{}\n{}", causes(&error), error.log()),
        }
    }

    /// Another store: nothing of this one is found.
    pub(crate) fn bake_anew(&self, source: DockerfileSource) -> Dish {
        let state = self.folder.path().join("anew");
        let dish = self.bake_in(&Self::stack(source), &state).0;
        dish.unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()))
    }
}

impl Dish {
    fn new(folder: Arc<tempfile::TempDir>, store: Store, image: Image) -> Self {
        let json = |digest: &kiln_model::Digest| -> Value {
            serde_json::from_slice(&store.blobs.read_verified(digest).unwrap()).unwrap()
        };
        let manifest = json(&image.manifest);
        let whole = json(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap());
        let tree = store.trees.load(&image.tree).unwrap();
        Self { _folder: folder, config: whole["config"].clone(), whole, tree, image, store }
    }

    pub(crate) fn entry(&self, path: &str) -> &Entry {
        self.tree.get(&at(path)).unwrap_or_else(|| panic!("{path} is not there"))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.tree.get(&at(path)).is_some()
    }

    /// The content of a file.
    pub(crate) fn text(&self, path: &str) -> String {
        let Kind::File { digest, .. } = &self.entry(path).kind else { panic!("{path} is no file") };
        String::from_utf8(self.store.objects.read_verified(digest, 1 << 20).unwrap()).unwrap()
    }

    /// Mode, owner and group of a path, as `755 0:0`.
    pub(crate) fn meta(&self, path: &str) -> String {
        let meta = &self.entry(path).meta;
        format!("{:o} {}:{}", meta.mode, meta.uid, meta.gid)
    }

    /// The environment as the config has it.
    pub(crate) fn env(&self) -> Vec<String> {
        self.strings("Env")
    }

    pub(crate) fn strings(&self, key: &str) -> Vec<String> {
        let items = self.config[key].as_array().into_iter().flatten();
        items.map(|item| item.as_str().unwrap().to_owned()).collect()
    }
}
