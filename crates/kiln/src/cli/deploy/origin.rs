//! Where a stack comes from: its Git origin, else its folder. A stack's name is bound to it.

use std::fs;
use std::path::{Path, PathBuf};

/// A Git config is a page; more is not one.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Returns the origin of a stack folder: `URL//subfolder` inside a clone that has a remote, else the absolute path.
///
/// Credentials in a URL are left out: the origin is logged.
pub(crate) fn of(folder: &Path) -> String {
    from_git(folder).unwrap_or_else(|| folder.display().to_string())
}

fn from_git(folder: &Path) -> Option<String> {
    let root = folder.ancestors().find(|ancestor| ancestor.join(".git").exists())?;
    let url = remote_url(&read(&git_folder(root)?.join("config"))?)?;
    let below = folder.strip_prefix(root).ok()?;
    Some(match below.as_os_str().is_empty() {
        true => url,
        false => format!("{url}//{}", below.display()),
    })
}

/// A worktree or a submodule has a file there that points elsewhere; a worktree shares the config of its clone.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let path = root.join(".git");
    if path.is_dir() {
        return Some(path);
    }
    let text = read(&path)?;
    let folder = root.join(text.trim().strip_prefix("gitdir:")?.trim());
    match read(&folder.join("commondir")) {
        Some(common) => Some(folder.join(common.trim())),
        None => Some(folder),
    }
}

fn read(path: &Path) -> Option<String> {
    let small = fs::metadata(path).ok()?.len() <= CONFIG_BYTES_MAX;
    if small { fs::read_to_string(path).ok() } else { None }
}

/// The URL of `origin`, else of the first remote.
fn remote_url(config: &str) -> Option<String> {
    let mut remote: Option<String> = None;
    let mut found: Vec<(String, String)> = Vec::new();
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            let name = line.strip_prefix("[remote \"").and_then(|rest| rest.strip_suffix("\"]"));
            remote = name.map(Into::into);
        } else if let (Some(name), Some((key, value))) = (&remote, line.split_once('='))
            && key.trim() == "url"
        {
            found.push((name.clone(), without_credentials(value.trim().trim_matches('"'))));
        }
    }
    let origin = found.iter().position(|(name, _)| name == "origin").unwrap_or(0);
    found.into_iter().nth(origin).map(|(_, url)| url)
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        // An ssh user such as `git` is part of the address, no secret; a password never is.
        Some((user, host)) if scheme == "ssh" => {
            format!("ssh://{}@{host}{path}", user.split(':').next().unwrap_or_default())
        }
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_git_is_its_own_origin() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        assert_eq!(of(folder.path()), folder.path().display().to_string());
    }

    #[test]
    fn a_clone_is_known_by_its_remote_and_a_subfolder_by_its_place() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir_all(folder.path().join(".git")).unwrap();
        fs::create_dir_all(folder.path().join("deploy/shop")).unwrap();
        let config = "[core]\n\tbare = false\n[remote \"fork\"]\n\turl = /srv/fork\n[remote \"origin\"]\n\turl = https://me:token@example.org/shop.git\n";
        fs::write(folder.path().join(".git/config"), config).unwrap();
        assert_eq!(of(folder.path()), "https://example.org/shop.git");
        assert_eq!(of(&folder.path().join("deploy/shop")), "https://example.org/shop.git//deploy/shop");
    }

    #[test]
    fn a_worktree_has_the_origin_of_its_clone() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let git = folder.path().join("clone/.git");
        fs::create_dir_all(git.join("worktrees/w")).unwrap();
        fs::write(git.join("config"), "[remote \"origin\"]\nurl = git@example.org:shop.git\n").unwrap();
        fs::write(git.join("worktrees/w/commondir"), "../..\n").unwrap();
        fs::create_dir_all(folder.path().join("w")).unwrap();
        fs::write(folder.path().join("w/.git"), format!("gitdir: {}\n", git.join("worktrees/w").display()))
            .unwrap();
        assert_eq!(of(&folder.path().join("w")), "git@example.org:shop.git");
    }

    #[test]
    fn a_password_never_becomes_part_of_an_origin() {
        assert_eq!(without_credentials("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(without_credentials("ssh://git:p@h:22/x"), "ssh://git@h:22/x");
        assert_eq!(without_credentials("/srv/x"), "/srv/x");
    }
}
