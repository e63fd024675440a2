//! Whether a revision can be gone back to, and comes to what it was: `rollback-safe: yes` or `no, because`.
//!
//! The log knows of volumes and routes, the store of images and secrets. The look at images is a cheap one: files are there
//! and have their sizes, and what was not read within a day is said to be unverified.

use std::collections::BTreeSet;

use kiln_core::volume_hazards;
use kiln_model::release::RevisionSpec;
use kiln_model::service::Service;
use kiln_model::{Digest, ServiceName};
use kiln_store::Store;
use kiln_store::sealed::is_kept;
use serde_json::{Value, json};

use super::failure::Failure;
use super::table::count;
use crate::api::hazards::hazard;
use crate::api::wire::{self, Hazard};
use crate::runtime::StateDir;

/// Whether a revision can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Safety {
    /// The revision.
    pub to: u64,
    /// What speaks against it; nothing if it is safe.
    pub hazards: Vec<Hazard>,
    /// Stored files of its images that are there, and were not read within a day.
    pub unread: usize,
}

impl Safety {
    /// Looks at what the log says of volumes and routes, and at secrets. With `only`, just that service goes back.
    ///
    /// # Errors
    /// The controller said something impossible.
    pub(crate) fn of_log(
        state: &StateDir,
        detail: &wire::RevisionDetail,
        only: Option<&ServiceName>,
    ) -> Result<Self, Failure> {
        let spec = spec(detail)?;
        let concerns =
            |hazard: &&Hazard| only.is_none_or(|only| hazard.service.as_deref() == Some(only.as_str()));
        let mut hazards: Vec<Hazard> = detail.hazards.iter().filter(concerns).cloned().collect();
        for service in services(&spec, only) {
            let gone = service.spec.secrets.values().filter(|it| !is_kept(state.path(), &it.version));
            hazards.extend(gone.map(|secret| Hazard {
                code: "secret_gone".into(),
                text: format!(
                    "version {} of secret {}, which {} reads, is gone",
                    secret.version, secret.name, service.name
                ),
                service: Some(service.name.to_string()),
            }));
        }
        Ok(Self { to: detail.revision.number, hazards, unread: 0 })
    }

    /// As [`Safety::of_log`], and glances at the images.
    ///
    /// # Errors
    /// The store can't be opened, or the controller said something impossible.
    pub(crate) fn of(state: &StateDir, detail: &wire::RevisionDetail) -> Result<Self, Failure> {
        let store = Store::open(state.path())
            .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
        let mut safety = Self::of_log(state, detail, None)?;
        safety.glance(&store, &spec(detail)?);
        Ok(safety)
    }

    /// As [`Safety::of`], once an environment has gone on to `next`.
    ///
    /// # Errors
    /// As [`Safety::of`].
    pub(crate) fn after(
        state: &StateDir,
        detail: &wire::RevisionDetail,
        next: &RevisionSpec,
    ) -> Result<Self, Failure> {
        let mut safety = Self::of(state, detail)?;
        safety.hazards.extend(volume_hazards(&spec(detail)?, [(None, next)]).iter().map(hazard));
        Ok(safety)
    }

    fn glance(&mut self, store: &Store, spec: &RevisionSpec) {
        let mut verification = store.verification();
        let (mut looked_at, mut unread) = (BTreeSet::new(), BTreeSet::<Digest>::new());
        for service in spec.services.values() {
            if !looked_at.insert(service.spec.image) {
                continue;
            }
            let (code, text) = match verification.glance(&service.spec.image) {
                Ok(mut glance) => {
                    unread.append(&mut glance.unread);
                    let Some(first) = glance.damage.first() else { continue };
                    let more = match glance.damage.len() - 1 {
                        0 => String::new(),
                        more => format!(", and so are {}", count(more, "more file")),
                    };
                    ("image_damaged", format!("{first}{more}"))
                }
                Err(error) => ("image_gone", error.to_string()),
            };
            self.hazards.push(Hazard {
                code: code.into(),
                text: format!("image {} of {}: {text}", service.spec.image.short(), service.name),
                service: Some(service.name.to_string()),
            });
        }
        self.unread = unread.len();
    }

    /// Returns what is gone without which no instance starts.
    pub(crate) fn missing_secrets(&self) -> impl Iterator<Item = &str> {
        self.hazards.iter().filter(|hazard| hazard.code == "secret_gone").map(|hazard| hazard.text.as_str())
    }

    /// Whether nothing speaks against it.
    pub(crate) const fn is_safe(&self) -> bool {
        self.hazards.is_empty()
    }

    /// `yes`, or `no, because` of what.
    pub(crate) fn text(&self) -> String {
        if self.is_safe() {
            return match self.unread {
                0 => "yes".into(),
                unread => {
                    format!("yes; {} of its images not verified within a day", count(unread, "file"))
                }
            };
        }
        let because: Vec<&str> = self.hazards.iter().map(|hazard| hazard.text.as_str()).collect();
        format!("no, because {}", because.join("; "))
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let because =
            |hazard: &Hazard| json!({ "code": hazard.code, "text": hazard.text, "service": hazard.service });
        json!({
            "to": self.to,
            "safe": self.is_safe(),
            "because": self.hazards.iter().map(because).collect::<Vec<_>>(),
            "unverified_files": self.unread,
        })
    }
}

fn spec(detail: &wire::RevisionDetail) -> Result<RevisionSpec, Failure> {
    RevisionSpec::try_from(&detail.sealed)
        .map_err(|error| Failure::bug("the controller's answer can't be used").caused_by(&error))
}

fn services<'a>(spec: &'a RevisionSpec, only: Option<&'a ServiceName>) -> impl Iterator<Item = &'a Service> {
    spec.services.values().filter(move |service| only.is_none_or(|only| *only == service.name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_model::image::{Image, ImageConfig};
    use kiln_model::instance::{SecretRef, VolumeMount};
    use kiln_store::tree::{Entry, Kind, Meta};
    use kiln_store::{Tree, TreePath};

    use super::*;
    use crate::api::sealed::sample;

    const IMAGE: Digest = Digest::new([5; 32]);

    /// A state folder with an image of one file, and that file.
    fn stored() -> (tempfile::TempDir, StateDir, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = store.objects.put_bytes(b"program").unwrap();
        let mut tree = Tree::new();
        let entry = Entry { meta: Meta::default(), kind: Kind::File { digest, size: 7 } };
        tree.insert(&TreePath::parse("web").unwrap(), entry).unwrap();
        let (tree, config) = (store.trees.put(&tree).unwrap(), ImageConfig::default());
        store
            .images
            .put(&Image { manifest: IMAGE, tree, config, size_bytes: 7, unproven: Vec::new() })
            .unwrap();
        let state = StateDir::new(folder.path());
        (folder, state, digest)
    }

    /// A revision of one service of that image.
    fn revision(version: Option<&str>, volume: Option<&str>) -> RevisionSpec {
        let mut spec = sample();
        for service in spec.services.values_mut() {
            let own = Arc::make_mut(&mut service.spec);
            own.image = IMAGE;
            let secret =
                |version: &str| SecretRef { name: "token".parse().unwrap(), version: version.into() };
            own.secrets = version.map(|version| ("/token".to_owned(), secret(version))).into_iter().collect();
            let mount = |volume: &str| VolumeMount { volume: volume.parse().unwrap(), read_only: false };
            own.volumes = volume.map(|volume| ("/data".to_owned(), mount(volume))).into_iter().collect();
        }
        spec
    }

    fn detail(spec: &RevisionSpec, hazards: Vec<Hazard>) -> wire::RevisionDetail {
        let revision = wire::Revision { number: 41, ..wire::Revision::default() };
        wire::RevisionDetail { revision, sealed: spec.into(), hazards }
    }

    #[test]
    fn what_is_whole_and_not_read_lately_is_safe_and_said_to_be_unverified() {
        let (_folder, state, file) = stored();
        let safety = Safety::of(&state, &detail(&revision(None, None), Vec::new())).unwrap();
        assert_eq!(
            (safety.is_safe(), safety.text().as_str()),
            (true, "yes; 1 file of its images not verified within a day")
        );
        let store = Store::open(state.path()).unwrap();
        store.objects.remove(&file).unwrap();
        let safety = Safety::of(&state, &detail(&revision(None, None), Vec::new())).unwrap();
        assert_eq!(safety.hazards[0].code, "image_damaged");
        let expected = format!(
            "no, because image {} of web: /web is damaged in the store: {file} is gone",
            IMAGE.short()
        );
        assert_eq!(safety.text(), expected);
        store.images.remove(&IMAGE).unwrap();
        let safety = Safety::of(&state, &detail(&revision(None, None), Vec::new())).unwrap();
        assert_eq!((safety.hazards[0].code.as_str(), safety.unread), ("image_gone", 0));
    }

    #[test]
    fn a_secret_version_that_is_gone_is_named() {
        let (_folder, state, _) = stored();
        let detail = detail(&revision(Some("0123456789abcdef0123456789abcdef"), None), Vec::new());
        let safety = Safety::of_log(&state, &detail, None).unwrap();
        let expected = "version 0123456789abcdef0123456789abcdef of secret token, which web reads, is gone";
        assert_eq!(safety.missing_secrets().collect::<Vec<_>>(), [expected]);
        let other = ServiceName::new("other").unwrap();
        assert!(Safety::of_log(&state, &detail, Some(&other)).unwrap().is_safe());
    }

    #[test]
    fn what_the_log_knows_counts_for_the_service_that_goes_back() {
        let (_folder, state, _) = stored();
        let of = |service: Option<&str>| Hazard {
            code: "x".into(),
            text: format!("{service:?}"),
            service: service.map(Into::into),
        };
        let detail = detail(&revision(None, None), vec![of(Some("web")), of(Some("db")), of(None)]);
        assert_eq!(Safety::of_log(&state, &detail, None).unwrap().hazards.len(), 3);
        let web = ServiceName::new("web").unwrap();
        assert_eq!(Safety::of_log(&state, &detail, Some(&web)).unwrap().hazards, [of(Some("web"))]);
    }

    #[test]
    fn what_is_planned_may_leave_nothing_to_go_back_to() {
        let (_folder, state, _) = stored();
        let (now, mut next) = (revision(None, Some("data")), revision(None, Some("data")));
        let safety = |next: &RevisionSpec| Safety::after(&state, &detail(&now, Vec::new()), next).unwrap();
        assert!(safety(&next).is_safe(), "the same program goes on");
        next.services.values_mut().for_each(|service| service.spec_digest = Digest::new([9; 32]));
        let expected = "no, because volume data, which web mounts, is written to by web as well";
        assert_eq!(safety(&next).text(), expected);
        assert_eq!(safety(&next).json()["because"][0]["code"], "volume_shared");
    }
}
