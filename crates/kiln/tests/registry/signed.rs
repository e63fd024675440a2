//! What the builder of one host signed and pushed, as another host checks it.

use std::fs;

use crate::bases::bake_os;
use crate::server::Registry;
use crate::transfer::{Place, at};

#[test]
fn another_host_checks_who_baked_what_it_pulled_and_does_not_sign_it_itself() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    bake_os(&one, "text");
    let name = at(&registry, "os/os:v1");
    one.kiln(&["image", "push", "os/os", &name]).ok();
    two.kiln(&["image", "pull", &name]).ok();
    let public = one.kiln(&["image", "builder-key"]).ok()["public"].as_str().unwrap().to_owned();
    fs::write(two.path("builder.pub"), public).unwrap();
    let verify = ["image", "verify", &name, "--provenance"];
    let of_one = [&verify[..], &["--key", "builder.pub"]].concat();
    two.kiln(&of_one).ok();
    two.kiln(&verify).failed(1, &["is this builder's", "not signed by this key"]);

    // It comes to the same image from other inputs: what the first said of its own stays the first's word.
    fs::create_dir_all(two.path("elsewhere")).unwrap();
    fs::write(two.path("elsewhere/hello"), "text").unwrap();
    let stack = fs::read_to_string(one.path("stack.hcl")).unwrap();
    fs::write(two.path("stack.hcl"), stack.replace("\"./files\"", "\"./elsewhere\"")).unwrap();
    two.kiln(&["bake"]).ok();
    two.kiln(&of_one).ok();
    two.kiln(&verify).failed(1, &["not signed by this key"]);
}
