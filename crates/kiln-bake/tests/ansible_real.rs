//! A real playbook, played by Debian's Ansible from the mirror that this machine's apt uses.

#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use fixture::{causes, debian, image, names, now, quiet, recipe, run, slim, stack};
use kiln_bake::{BakeError, Baker, BakerOptions, Lock, LockOptions, PROVENANCE, Source};
use kiln_model::recipe::{BaseRecipe, DebianVariant, ImageRecipe, ImageSource, ProvisionStep, RecipeStep};
use kiln_model::stack::Stack;
use kiln_model::{BaseName, ImageName};
use kiln_store::{Kind, Store, Tree, TreePath};

const SITE: &str = r#"
- hosts: databases
  tasks:
    - name: not of this image
      fail: {}

- hosts: webservers
  roles: [common]
  tasks:
    - name: a group
      group: { name: web, gid: 700 }
    - name: a user
      user: { name: web, uid: 700, group: web, create_home: false, shell: /usr/sbin/nologin }
    - name: a folder
      file: { path: /srv/web, state: directory, owner: web, mode: "0750" }
    - name: a file
      copy: { src: hello.txt, dest: /srv/web/hello.txt, owner: web, group: web }
    - name: a template
      template: { src: web.conf.j2, dest: /etc/web.conf, mode: "0640" }
    - name: a line
      lineinfile: { path: /etc/web.conf, line: "last {{ out.stdout }}" }
      vars: { out: { stdout: line } }
    - name: a link
      file: { src: web.conf, dest: /etc/web.link, state: link }
    - name: a command
      command: dpkg-query --show --showformat "${Package}" dpkg
      register: query
    - name: a shell
      shell: 'echo "{{ query.stdout }} $(command -v python3)" > /etc/query'
    - name: as another user
      command: touch /srv/web/own
      become: true
      become_user: web
      become_method: su
      become_flags: "--shell /bin/sh"
    - name: skipped
      fail: {}
      tags: [never]
"#;

const FAILING: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - name: rescued
      block:
        - command: "false"
      rescue:
        - command: touch /half
    - name: the one that fails
      shell: echo reason >&2; exit 3
"#;

/// What is in the playbook's folder.
fn playbooks() -> [(&'static str, &'static str); 7] {
    [
        ("site.yml", SITE),
        ("files/hello.txt", "hello\n"),
        ("templates/web.conf.j2", "workers {{ workers }} on {{ ansible_distribution_release }}\n"),
        ("roles/common/tasks/main.yml", "- name: in a role\n  file: { path: /etc/role, state: touch }\n"),
        ("failing.yml", FAILING),
        ("idle.yml", "- hosts: databases\n  tasks: [{ debug: {} }]\n"),
        ("syntax.yml", "- hosts: all\n  tasks:\n    - name: x\n     command: y\n"),
    ]
}

fn tools() -> BaseName {
    BaseName::new("ansible-bookworm").unwrap()
}

fn provision(playbook: &str, vars: &[(&str, &str)]) -> RecipeStep {
    RecipeStep::Provision(ProvisionStep {
        playbook: playbook.into(),
        vars: vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        tags: Vec::new(),
        groups: vec!["webservers".into()],
        network: false,
        tools: tools(),
    })
}

/// A machine with a baker.
struct World {
    _folder: tempfile::TempDir,
    store: Store,
    baker: Baker,
    source: Source,
    lock: Lock,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let source = folder.path().join("source");
        for (path, text) in playbooks() {
            let path = source.join("provision").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let store = Store::open(folder.path().join("state")).unwrap();
        let baker = Baker::new(store.clone(), BakerOptions::default()).unwrap();
        let options = LockOptions { upgrade: false, now: now() };
        let lock = baker.lock(&with_tools(Vec::new()), None, options, &quiet);
        let lock = lock.unwrap_or_else(|error| panic!("{}", causes(&error)));
        Self { _folder: folder, store, baker, source: Source::Folder(source), lock }
    }

    fn bake(&self, stack: &Stack) -> Result<BTreeMap<ImageName, Tree>, BakeError> {
        let names = stack.images.keys().cloned().collect();
        let images = self.baker.bake(stack, &self.lock, &self.source, &names, &quiet)?;
        Ok(images.into_iter().map(|(name, it)| (name, self.store.trees.load(&it.tree).unwrap())).collect())
    }

    /// Plays what can't be played on the base.
    fn failure(&self, from: ImageSource, playbook: &str) -> BakeError {
        let recipe = recipe(from, vec![provision(playbook, &[])]);
        self.bake(&with_tools(vec![("web", recipe)])).expect_err(playbook)
    }

    fn text(&self, tree: &Tree, path: &str) -> String {
        let Kind::File { digest, .. } = &tree.get(&at(path)).expect(path).kind else { panic!("{path}") };
        String::from_utf8(self.store.objects.read_verified(digest, 1 << 20).unwrap()).unwrap()
    }
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

fn with_tools(images: Vec<(&str, ImageRecipe)>) -> Stack {
    let mut stack = stack(Some(debian(None, &["passwd"])), images);
    let mut ansible = debian(None, &["ansible-core", "python3-apt"]);
    ansible.variant = DebianVariant::Tools;
    stack.bases.insert(tools(), BaseRecipe::Debian(ansible));
    stack
}

fn base() -> ImageSource {
    ImageSource::Base(slim())
}

#[test]
fn a_playbook_changes_an_image_that_has_no_python_and_leaves_nothing_of_ansible() {
    let world = World::new();
    let played = |more: &[(&str, &str)]| {
        let vars = [&[("workers", "4")], more].concat();
        recipe(
            base(),
            vec![provision("provision/site.yml", &vars), run(&["sh", "-c", "! test -e /.kiln/ansible"])],
        )
    };
    let plain = recipe(base(), Vec::new());
    // A variable that nothing uses makes another step of the same outcome.
    let stack =
        with_tools(vec![("plain", plain), ("web", played(&[])), ("again", played(&[("unused", "1")]))]);
    let trees = world.bake(&stack).unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()));
    let (plain, web) = (&trees[&image("plain")], &trees[&image("web")]);

    assert_eq!(world.text(web, "etc/web.conf"), "workers 4 on bookworm\nlast line\n");
    assert_eq!(world.text(web, "etc/query"), "dpkg \n", "the shell saw no python");
    assert_eq!(world.text(web, "srv/web/hello.txt"), "hello\n");
    let owner = |path| web.get(&at(path)).map(|entry| (entry.meta.uid, entry.meta.gid)).expect(path);
    assert_eq!(owner("srv/web/hello.txt"), (700, 700));
    assert_eq!(owner("srv/web/own").0, 700);
    assert!(world.text(web, "etc/passwd").contains("web:x:700:700:"));

    let differs = |(path, entry): &(&TreePath, &kiln_store::Entry)| plain.get(path) != Some(entry);
    let changed: Vec<String> = web.iter().filter(differs).map(|(path, _)| path.to_string()).collect();
    let made =
        ["/etc/query", "/etc/role", "/etc/web.conf", "/etc/web.link", "/srv/web", "/srv/web/hello.txt"];
    let accounts = ["/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"];
    let touched = ["/srv/web/own", "/var/tmp"];
    let expected: std::collections::BTreeSet<_> = made.into_iter().chain(accounts).chain(touched).collect();
    assert_eq!(changed.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), expected);
    let again = &trees[&image("again")];
    assert!(web.iter().eq(again.iter()), "a second play gives the same files");

    provenance_names_ansible(&world, &stack);
    failures_name_task_file_and_line(&world);
    what_can_not_be_played_is_told(&world);
}

fn provenance_names_ansible(world: &World, stack: &Stack) {
    let name = image("web");
    let images = world.baker.bake(stack, &world.lock, &world.source, &names(&["web"]), &quiet).unwrap();
    let key = kiln_bake::generate(kiln_bake::KeyKind::Ed25519).unwrap();
    let builder = kiln_bake::SigningKey::from_pem(&key).unwrap();
    let World { store, lock, source, .. } = world;
    kiln_bake::attest(
        store,
        stack,
        lock,
        source,
        (&name, &images[&name], kiln_bake::Known::default()),
        &builder,
    )
    .unwrap();
    let said = kiln_bake::said_about(&world.store, &images[&name].manifest).unwrap();
    let provenance = said.iter().find(|said| said.kind() == PROVENANCE).expect("a bake is told of");
    let text = String::from_utf8(world.store.blobs.read_verified(&provenance.payload).unwrap()).unwrap();
    for part in ["pkg:deb/debian/ansible-core@", "provision/roles/common/tasks/main.yml", "\"workers\":\"4\""]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn failures_name_task_file_and_line(world: &World) {
    let error = world.failure(base(), "provision/failing.yml");
    let text = causes(&error);
    let task = "task `the one that fails` failed (provision/failing.yml:10): non-zero return code\nreason";
    assert!(text.ends_with(task), "{text}");
    assert!(error.log().contains("TASK [the one that fails]") && !error.log().contains("kiln-provision"));
    let text = causes(&world.failure(base(), "provision/syntax.yml"));
    assert!(text.contains("'provision/syntax.yml': line 4"), "{text}");
    let text = causes(&world.failure(base(), "provision/idle.yml"));
    assert!(text.ends_with("no play of `provision/idle.yml` is for this image"), "{text}");
}

fn what_can_not_be_played_is_told(world: &World) {
    let error = world.failure(base(), "provision/sites.yml");
    assert!(
        causes(&error).ends_with("`provision/sites.yml` is not in the stack folder"),
        "{}",
        causes(&error)
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean `provision/site.yml`?"));
    let text = causes(&world.failure(base(), "provision/roles"));
    assert!(text.ends_with("`provision/roles` is no file"), "{text}");
    let text = causes(&world.failure(base(), "../site.yml"));
    assert!(text.ends_with("`../site.yml` leaves the stack folder"), "{text}");
    let text = causes(&world.failure(ImageSource::Scratch, "provision/site.yml"));
    assert!(text.contains("the image has no /bin/sh"), "{text}");
    assert!(Path::new("/.kiln").symlink_metadata().is_err(), "nothing of it is on the machine");
}
