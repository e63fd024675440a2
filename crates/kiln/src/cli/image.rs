//! `kiln image`

mod diff;
mod document;
mod gc;
mod sbom;
mod scan;
mod signing;
mod transfer;

pub(super) use gc::disk_text;
pub(in crate::cli) use transfer::{Place, place};

use std::fmt::Write as _;
use std::path::PathBuf;

use document::Document;
use kiln_bake::{
    ATTESTATIONS_TYPE, CERTIFICATE_TYPE, CYCLONEDX_TYPE, Inventory, PROVENANCE, SIGNATURES_TYPE, SPDX_TYPE,
    Said, said_about,
};
use kiln_model::image::Image;
use kiln_model::{ByteSize, Digest};
use kiln_store::Store;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::table::Table;

/// List, show, push and pull images
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln image list\n  kiln image push shop/web localhost:5000/shop/web:v1")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "these are help texts, whose brackets hold what may be left out"
)]
enum Verb {
    /// List the images in the store
    #[command(after_help = "Example:\n  kiln image list --json")]
    List,
    /// Show one image: how it runs, and how large it is
    #[command(after_help = "Example:\n  kiln image show shop/web\n  kiln image show 9f2c41d0a7b3")]
    Show {
        /// A name, a digest, or the beginning of one
        image: String,
    },
    /// Show what differs between two images: config, packages and files
    #[command(after_help = "Example:\n  kiln image diff 9f2c41d0a7b3 shop/web")]
    Diff {
        /// The old image: a name, a digest, or the beginning of one
        old: String,
        /// The new one
        new: String,
    },
    /// Print what an image was made from, by which recipe
    ///
    /// SLSA's provenance, as an in-toto statement.
    #[command(
        after_help = "Example:\n  kiln image provenance shop/web | jq .predicate.buildDefinition.externalParameters"
    )]
    Provenance {
        /// A name, a digest, or the beginning of one
        image: String,
    },
    /// Print the certificate that an image was made twice and came out the same
    ///
    /// `kiln bake --prove` makes it: what was varied, and what the image is.
    #[command(after_help = "Example:\n  kiln bake --prove && kiln image certificate shop/web")]
    Certificate {
        /// A name, a digest, or the beginning of one
        image: String,
    },
    /// Make a pair of keys for signatures: NAME.key and NAME.pub
    #[command(after_help = "Example:\n  kiln image keygen release")]
    Keygen {
        /// What the two files' names begin with
        name: PathBuf,
        /// The kind of the keys
        #[arg(long = "type", value_enum, default_value_t = signing::Type::P256)]
        kind: signing::Type,
    },
    /// Sign an image and what is said about it
    ///
    /// In the form of `cosign`: a signature on the digest, and signed in-toto statements that hold provenance and bills of materials.
    #[command(after_help = "Example:\n  kiln image sign shop/web --key release.key")]
    Sign {
        /// A name, a digest, or the beginning of one
        image: String,
        /// The private key: PKCS #8 as PEM, of ECDSA on P-256 or Ed25519
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check that a key signed an image and what is said about it
    ///
    /// With --provenance, that the builder which baked it signed what it was made from: this host, or the one whose public key is given.
    #[command(
        after_help = "Example:\n  kiln image verify shop/web --key release.pub\n  kiln image verify shop/web --provenance --key builder.pub"
    )]
    Verify {
        /// A name, a digest, or the beginning of one
        image: String,
        /// The public key, as PEM
        #[arg(long, value_name = "FILE", required_unless_present = "provenance")]
        key: Option<PathBuf>,
        /// Check who baked it, and not who released it
        #[arg(long)]
        provenance: bool,
    },
    /// Print the public key of this host's builder
    ///
    /// Each bake signs the provenance of its images with the private one, which is made at the first need and stays in the state folder.
    #[command(after_help = "Example:\n  kiln image builder-key > builder.pub")]
    BuilderKey,
    /// Print an image's bill of materials
    ///
    /// Debian packages exactly, and the Python, JavaScript, Rust, Go and Java packages that its files name. The document follows
    /// from the image alone: it is the same bytes wherever it is made.
    #[command(after_help = "Example:\n  kiln image sbom shop/web --format cyclonedx > web.cdx.json")]
    Sbom {
        /// A name, a digest, or the beginning of one
        image: String,
        /// The format of the document
        #[arg(long, value_enum, default_value_t = sbom::Format::Spdx)]
        format: sbom::Format,
    },
    /// Look for known vulnerabilities in an image's software
    ///
    /// Matches its bill of materials with a database that is on this machine: nothing is fetched. Exits with 1 where one is as bad as
    /// --severity, or worse.
    #[command(after_help = "Example:\n  kiln image scan shop/web --database ./osv --severity critical")]
    Scan {
        /// A name, a digest, or the beginning of one
        image: String,
        /// A folder of JSON files in the OSV schema, one such file, or a zip archive of them
        #[arg(long, value_name = "PATH")]
        database: PathBuf,
        /// How bad a vulnerability must be to count
        #[arg(long, value_enum, default_value_t = scan::Level::High)]
        severity: scan::Level,
    },
    /// Give an image to a registry, or write it into a folder or a file
    ///
    /// REF is HOST/NAME:TAG, oci:DIR[:TAG], or docker-archive:FILE[:NAME:TAG]. What the registry has already is not sent again. Users and passwords come from
    /// Docker's config.json. Only this machine is spoken to without TLS.
    #[command(
        after_help = "Example:\n  kiln image push shop/web localhost:5000/shop/web:v1\n  kiln image push shop/web oci:out:v1"
    )]
    Push {
        /// A name, a digest, or the beginning of one
        image: String,
        /// Where it goes
        #[arg(value_name = "REF", value_parser = transfer::place)]
        to: transfer::Place,
        #[command(flatten)]
        options: transfer::Options,
    },
    /// Bring an image in from a registry, a folder or a file
    ///
    /// REF is HOST/NAME:TAG, HOST/NAME@sha256:DIGEST, oci:DIR[:TAG], or docker-archive:FILE[:NAME:TAG]. It is kept under that name.
    #[command(
        after_help = "Example:\n  kiln image pull localhost:5000/shop/web:v1\n  kiln image pull oci:out:v1"
    )]
    Pull {
        /// Where it is
        #[arg(value_name = "REF", value_parser = transfer::place)]
        from: transfer::Place,
        #[command(flatten)]
        options: transfer::Options,
    },
    /// Remove what nothing needs
    ///
    /// Images that no retained revision, instance or name needs, their files and layers, and secret values that no retained revision
    /// needs. It happens by itself as well, some seconds after a revision is released. With --pack, the files and layers of retained
    /// revisions that nothing runs of are packed besides; they are unpacked when they are needed.
    #[command(after_help = "Example:\n  kiln image gc --dry-run\n  kiln image gc --pack")]
    Gc {
        /// Only say what would go, and why the rest stays
        #[arg(long)]
        dry_run: bool,
        /// Pack what is kept and not used
        #[arg(long)]
        pack: bool,
    },
    /// Forget a name of an image
    ///
    /// The image goes by itself once no other name, no retained revision and no instance needs it.
    #[command(after_help = "Example:\n  kiln image forget localhost:5000/shop/web:v1")]
    Forget {
        /// The name, as `kiln image list` shows it
        name: String,
    },
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    if let Verb::Keygen { name, kind } = &args.verb {
        return signing::keygen(name, *kind, context);
    }
    context.require_root("image")?;
    if let Verb::Gc { dry_run, pack } = &args.verb {
        return gc::run(*dry_run, *pack, context);
    }
    let store = Store::open(context.state().path())
        .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
    match &args.verb {
        Verb::List => list(&store, context),
        Verb::Show { image } => show(&store, image, context),
        Verb::Provenance { image } => document::run(Document::Provenance, &store, image, context),
        Verb::Keygen { .. } | Verb::Gc { .. } => unreachable!("carried out above: the store is not theirs"),
        Verb::Sign { image, key } => signing::run_sign(&store, image, key, context),
        Verb::Verify { image, key: Some(key), provenance: false } => {
            signing::run_verify(&store, image, key, context)
        }
        Verb::Verify { image, key, .. } => signing::verify_provenance(&store, image, key.as_deref(), context),
        Verb::BuilderKey => signing::builder_key(context),
        Verb::Certificate { image } => document::run(Document::Certificate, &store, image, context),
        Verb::Diff { old, new } => diff::run(&store, old, new, context),
        Verb::Sbom { image, format } => sbom::run(&store, image, *format, context),
        Verb::Scan { image, database, severity } => scan::run(&store, image, database, *severity, context),
        Verb::Push { image, to, options } => {
            let (digest, _) = find(&images(&store)?, image)?;
            transfer::push_image(&store, (digest, image), to, options, context)
        }
        Verb::Pull { from, options } => transfer::pull_image(&store, from, options, context),
        Verb::Forget { name } => forget(&store, name, context),
    }
}

/// Every image with the names that point at it.
fn images(store: &Store) -> Result<Vec<(Digest, Vec<String>)>, Failure> {
    let failed = |error| Failure::external("the images can't be listed").cause(error);
    let names = store.images.names().map_err(failed)?;
    let named =
        |digest: Digest| names.iter().filter(|(_, to)| *to == digest).map(|(name, _)| name.clone()).collect();
    Ok(store.images.list().map_err(failed)?.into_iter().map(|digest| (digest, named(digest))).collect())
}

fn load(store: &Store, digest: Digest) -> Result<Image, Failure> {
    store.images.get(&digest).map_err(|error| {
        Failure::external(format!("image {} can't be read", digest.short()))
            .caused_by(&error)
            .hint("`kiln bake` makes it again from the same inputs")
    })
}

fn inventory(store: &Store, image: &Image) -> Result<Inventory, Failure> {
    Inventory::of(store, image).map_err(|error| unreadable(image, &error))
}

fn unreadable(image: &Image, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::external(format!("the files of image {} can't be read", image.manifest.short()))
        .caused_by(error)
        .hint("`kiln bake` makes it again from the same inputs")
}

fn list(store: &Store, context: &mut Context<'_>) -> Outcome {
    let mut rows = Vec::new();
    for (digest, names) in images(store)? {
        match load(store, digest) {
            Ok(image) => rows.push((image, names)),
            // It was collected since it was listed.
            Err(_) if !store.images.contains(&digest) => {}
            Err(error) => return Err(error),
        }
    }
    let is_packed = |image: &Image| store.is_packed(&image.manifest);
    // Named ones first: the others are what only older revisions still need.
    rows.sort_by(|a, b| (a.1.is_empty(), &a.1).cmp(&(b.1.is_empty(), &b.1)));
    if context.screen.json() {
        let shown = |(image, names): &(Image, Vec<String>)| {
            let mut answer = answer(image, names);
            answer["packed"] = json!(is_packed(image));
            answer
        };
        let images: Vec<Value> = rows.iter().map(shown).collect();
        context.screen.answer(&json!({ "images": images }));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["IMAGE", "SIZE", "NAMES"]);
    for (image, names) in &rows {
        let packed = if is_packed(image) { " (packed)" } else { "" };
        let size = format!("{}{packed}", ByteSize(image.size_bytes));
        table.row([image.manifest.short(), size, names.join(", ")]);
    }
    context.screen.print(&table.render(0));
    Ok(Exit::Done)
}

fn show(store: &Store, which: &str, context: &mut Context<'_>) -> Outcome {
    let (digest, names) = find(&images(store)?, which)?;
    let image = load(store, digest)?;
    let said = said(store, digest)?;
    if context.screen.json() {
        let mut answer = answer(&image, &names);
        let referrers =
            said.iter().map(|said| json!({ "digest": said.manifest.to_string(), "kind": said.kind() }));
        answer["referrers"] = referrers.collect();
        context.screen.answer(&answer);
        return Ok(Exit::Done);
    }
    let paint = context.screen.paint();
    let config = &image.config;
    let words = |words: &[String]| serde_json::to_string(words).expect("strings always print as JSON");
    let mut table = Table::bare();
    table.row(["names", &names.join(", ")]);
    table.row(["tree", &image.tree.to_string()]);
    table.row(["size", &ByteSize(image.size_bytes).to_string()]);
    for reason in &image.unproven {
        table.row(["unproven", reason]);
    }
    for said in &said {
        table.row([kind(said), &said.manifest.to_string()]);
    }
    table.row(["entrypoint", &words(&config.entrypoint)]);
    table.row(["command", &words(&config.command)]);
    table.row(["workdir", if config.workdir.is_empty() { "/" } else { &config.workdir }]);
    table.row(["user", if config.user.is_empty() { "root" } else { &config.user }]);
    for (key, value) in &config.env {
        table.row([format!("env {key}"), value.clone()]);
    }
    for (key, value) in &config.labels {
        table.row([format!("label {key}"), value.clone()]);
    }
    for port in &config.expose {
        table.row(["expose", port]);
    }
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write!(text, "{}\n{}", paint.bold(&image.manifest.to_string()), table.render(2));
    context.screen.print(&text);
    Ok(Exit::Done)
}

/// What is said about an image beside it.
fn said(store: &Store, digest: Digest) -> Result<Vec<Said>, Failure> {
    said_about(store, &digest).map_err(|error| {
        Failure::external(format!("what is said about image {} can't be read", digest.short()))
            .caused_by(&error)
    })
}

/// A word for people.
fn kind(said: &Said) -> &str {
    match said.kind() {
        SPDX_TYPE => "spdx",
        CYCLONEDX_TYPE => "cyclonedx",
        PROVENANCE => "provenance",
        CERTIFICATE_TYPE => "certificate",
        SIGNATURES_TYPE => "signatures",
        ATTESTATIONS_TYPE => "attestations",
        other => other,
    }
}

fn forget(store: &Store, name: &str, context: &mut Context<'_>) -> Outcome {
    let removed = store.images.remove_name(name);
    if !removed.map_err(|error| Failure::external("the name can't be removed").cause(error))? {
        return Err(
            Failure::refused(format!("no image is called `{name}`")).hint("`kiln image list` shows them")
        );
    }
    if context.screen.json() {
        context.screen.answer(&json!({ "forgotten": name }));
    } else {
        context.screen.line(&format!("{name} is forgotten"));
    }
    Ok(Exit::Done)
}

fn find(images: &[(Digest, Vec<String>)], which: &str) -> Result<(Digest, Vec<String>), Failure> {
    let hex = which.strip_prefix("sha256:").unwrap_or(which);
    let fits = |(digest, names): &&(Digest, Vec<String>)| {
        names.iter().any(|name| name == which) || (!hex.is_empty() && digest.hex().starts_with(hex))
    };
    let found: Vec<_> = images.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            Err(Failure::refused(format!("no image is called `{which}`"))
                .hint("`kiln image list` shows them"))
        }
        many => Err(Failure::usage(format!("`{which}` could be {} images", many.len()))
            .hint("give more of the digest")),
    }
}

fn answer(image: &Image, names: &[String]) -> Value {
    let config = &image.config;
    json!({
        "digest": image.manifest.to_string(),
        "names": names,
        "tree": image.tree.to_string(),
        "size_bytes": image.size_bytes,
        "unproven": image.unproven,
        "entrypoint": config.entrypoint,
        "command": config.command,
        "workdir": config.workdir,
        "user": config.user,
        "env": config.env,
        "labels": config.labels,
        "expose": config.expose,
        "volumes": config.volumes,
        "stop_signal": config.stop_signal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_name_or_by_the_beginning_of_its_digest() {
        let images =
            [(Digest::new([0x11; 32]), vec!["shop/web".to_string()]), (Digest::new([0x12; 32]), vec![])];
        assert_eq!(find(&images, "shop/web").unwrap().0, images[0].0);
        assert_eq!(find(&images, "sha256:12").unwrap().0, images[1].0);
        assert_eq!(find(&images, "1").unwrap_err().exit().code(), 2);
        assert_eq!(find(&images, "ff").unwrap_err().exit().code(), 3);
        assert_eq!(find(&images, "").unwrap_err().exit().code(), 3);
    }
}
