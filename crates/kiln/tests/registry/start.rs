//! How a registry starts, or says why not; users, and TLS.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::server::{Registry, command};

/// ann's password is `a`, from the test vectors of jBCrypt.
pub(crate) const USERS: &str = "ann:$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe\n";

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kiln-registry-").tempdir_in("/var/tmp").unwrap()
}

/// Runs a registry that can't start, and returns its exit code and what it says.
fn refused(root: &Path, words: &[&str]) -> (i32, String) {
    let output = command(root, words).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let folder = folder();
    let root = folder.path().join("root");
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut in_use = Command::new(env!("CARGO_BIN_EXE_kiln"));
    in_use.args(["registry", "serve", "--listen", &address, "--root"]).arg(&root);
    let output = in_use.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5));
    assert!(said.contains(&address) && said.contains("in use") && said.contains("--listen"), "{said}");

    let (code, said) = refused(&root, &["--htpasswd", "/nonexistent/users"]);
    assert!(code == 5 && said.contains("/nonexistent/users") && said.contains("No such file"), "{said}");
    let (code, said) = refused(&root, &["--htpasswd", &path("users", &format!("{USERS}bob:{{SHA}}x\n"))]);
    assert!(code == 5 && said.contains("line 2") && said.contains("htpasswd -B"), "{said}");

    let (cert, key) = (path("cert", "not PEM"), path("key", "not PEM"));
    let (code, said) = refused(&root, &["--tls-cert", &cert, "--tls-key", &key]);
    assert!(code == 5 && said.contains("no certificate in PEM"), "{said}");
    let (code, said) = refused(&root, &["--tls-cert", &cert]);
    assert!(code == 2 && said.contains("--tls-key"), "{said}");

    let file = path("a-file", "");
    let (code, said) = refused(Path::new(&file), &[]);
    assert!(code == 5 && said.contains("a-file"), "{said}");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("registry.lock"), "something else entirely\n").unwrap();
    let (code, said) = refused(&root, &[]);
    assert!(code == 3 && said.contains("registry.lock"), "{said}");
}

#[test]
fn a_second_one_in_the_same_folder_is_refused() {
    let registry = Registry::start();
    let (code, said) = refused(&registry.root(), &[]);
    assert!(code == 3 && said.contains("another registry serves"), "{said}");
    assert_eq!(registry.get("/v2/").status, 200);
}

#[test]
fn only_users_are_let_in_where_there_are_users() {
    let folder = folder();
    let users = folder.path().join("users");
    fs::write(&users, USERS).unwrap();
    let registry = Registry::start_with(&["--htpasswd", users.to_str().unwrap()]);
    let digest = crate::server::sha256(b"x");
    for (method, path) in [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", format!("/v2/a/blobs/{digest}")),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
    ] {
        // Nobody; ann with `b`; bob with `a`; nonsense.
        for header in ["", "Basic YW5uOmI=", "Basic Ym9iOmE=", "Basic ????", "Bearer x"] {
            let answer = registry.send(method, &path, &[("Authorization", header)], b"x");
            answer.refused(401, "UNAUTHORIZED");
            assert!(answer.header("www-authenticate").starts_with("Basic realm="));
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        }
    }
    assert_eq!(registry.files("blobs").len() + registry.files("uploads").len(), 0);
    let ann = [("Authorization", "Basic YW5uOmE=")];
    for _ in 0..2 {
        assert_eq!(registry.send("GET", "/v2/", &ann, b"").status, 200);
    }
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(registry.send("POST", &path, &ann, b"x").status, 201);
}

/// Makes a certificate for 127.0.0.1 with Debian's openssl; none where it is not installed.
pub(crate) fn certificate(folder: &Path) -> Option<(String, String)> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                 -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let made = Command::new("openssl")
        .args(words.split(' '))
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .is_ok_and(|output| output.status.success());
    if !made {
        crate::clients::skipped("openssl");
        return None;
    }
    Some((cert.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned()))
}

#[test]
fn it_speaks_tls_with_the_certificate_that_it_is_given() {
    let folder = folder();
    let Some((cert, key)) = certificate(folder.path()) else { return };
    let registry = Registry::start_with(&["--tls-cert", &cert, "--tls-key", &key]);
    let curl = |more: &[&str]| {
        let url = format!("https://{}/v2/", registry.client.address);
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30"])
            .args(more)
            .arg(url)
            .output()
    };
    let Ok(answer) = curl(&["--cacert", &cert]) else {
        crate::clients::skipped("curl");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "{}", "{answer:?}");
    assert!(!curl(&[]).unwrap().status.success(), "nobody vouches for it");
    // The certificate alone is not enough: the key must be its own.
    let other = tempfile::tempdir_in(folder.path()).unwrap();
    let (_, wrong) = certificate(other.path()).unwrap();
    let (code, said) = refused(&folder.path().join("root"), &["--tls-cert", &cert, "--tls-key", &wrong]);
    assert!(code == 5 && said.contains("can't be used together"), "{said}");
}
