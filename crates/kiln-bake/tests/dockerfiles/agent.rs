//! `RUN --mount=type=ssh`, and the network of the host.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use kiln_bake::BakeError;
use kiln_model::recipe::DockerfileSource;

use crate::fixture::causes;
use crate::kitchen::{Dish, Kitchen, dockerfile};

/// Says whether a socket is there, and what it belongs to.
const LOOK: &str = "if test -S \"$SSH_AUTH_SOCK\"; then stat -c '%a %u:%g' $SSH_AUTH_SOCK; else echo none $SSH_AUTH_SOCK; fi";

fn bake(kitchen: &Kitchen, ssh: bool, run: &str, agent: Option<&str>) -> Result<Dish, BakeError> {
    kitchen.write("web/Dockerfile", &format!("FROM os\n{run}\n"));
    let stack = Kitchen::stack(DockerfileSource { ssh, ..dockerfile("web") });
    kitchen.bake_with_agent(&stack, agent.map(|name| kitchen.path(name)))
}

fn refused(done: Result<Dish, BakeError>) -> String {
    match done.unwrap_err() {
        BakeError::Dockerfile { problems } => problems[0].to_string(),
        error => format!("{}\n{}", causes(&error), error.log()),
    }
}

#[test]
fn an_ssh_agent_is_there_where_the_stack_and_the_caller_give_it() {
    let kitchen = Kitchen::new();
    kitchen.write("web/x", "");
    let _agent = UnixListener::bind(kitchen.path("agent")).unwrap();
    let seen = |ssh, run: &str, agent| {
        let dish = bake(&kitchen, ssh, &format!("RUN {run} ({LOOK}) > /seen"), agent);
        let dish = dish.unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()));
        assert!(!dish.has("run"), "nothing of it stays");
        dish.text("seen")
    };
    let own = "--mount=type=ssh,required,mode=0666,uid=1000,target=/tmp/own.sock";
    assert_eq!(seen(true, "--mount=type=ssh", Some("agent")), "600 0:0\n");
    assert_eq!(seen(true, own, Some("agent")), "666 1000:0\n");
    assert_eq!(seen(true, "--mount=type=ssh,id=other", Some("agent")), "none\n");
    // The stack must allow it, and the caller have one.
    assert_eq!(seen(false, "--mount=type=ssh", Some("agent")), "none\n");
    let said = refused(bake(&kitchen, true, "RUN --mount=type=ssh,required true", None));
    assert!(said.contains("web/Dockerfile:2:5: this needs an SSH agent, and there is none"), "{said}");
    let said = refused(bake(&kitchen, false, "RUN --mount=type=ssh,required=true true", Some("agent")));
    assert!(
        said.contains("web/Dockerfile:2:5: this needs an SSH agent, which the image is not given"),
        "{said}"
    );
    let said = refused(bake(&kitchen, true, "RUN --mount=type=ssh,required,id=other true", Some("agent")));
    assert!(said.contains("there is no SSH agent `other`"), "{said}");
}

#[test]
fn the_network_of_the_host_is_that_of_an_image_with_a_network() {
    let kitchen = Kitchen::new();
    kitchen.write("web/Dockerfile", "FROM os\nRUN --network=host readlink /proc/self/ns/net > /seen\n");
    let dish = kitchen.bake_with(|source| source.network = true);
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(dish.text("seen").trim(), ours.to_string_lossy());
    assert_eq!(dish.image.unproven.len(), 1);
}

/// Asks which keys there are, and whether all may be removed; writes the kinds of the answers.
const ASK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(at.sun_path, getenv("SSH_AUTH_SOCK"), sizeof at.sun_path - 1);
    if (connect(s, (struct sockaddr *)&at, sizeof at)) { perror("connect"); return 1; }
    unsigned char kinds[] = { 11, 19 }, answer[5];
    for (int i = 0; i < 2; i++) {
        unsigned char question[5] = { 0, 0, 0, 1, kinds[i] };
        if (write(s, question, 5) != 5 || recv(s, answer, 5, MSG_WAITALL) != 5) { perror("ask"); return 1; }
        printf("%d\n", answer[4]);
    }
    return 0;
}
"#;

#[test]
fn a_command_asks_the_agent_through_the_socket_that_it_is_given() {
    let kitchen = Kitchen::new();
    kitchen.write("ask.c", ASK).write("web/.keep", "");
    let compiled = std::process::Command::new("cc")
        .args(["-static", "-o"])
        .args([kitchen.path("web/ask"), kitchen.path("ask.c")])
        .status();
    assert!(compiled.unwrap().success());
    let agent = UnixListener::bind(kitchen.path("agent")).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&[0, 0, 0, 1, 12]).unwrap();
        // Nothing more is let through.
        (question[4], stream.read(&mut question).unwrap())
    });
    let run = "COPY --chmod=755 ask /ask\nUSER 1000\nWORKDIR /home/app\n\
               RUN --mount=type=ssh,required,uid=1000 /ask > seen";
    let dish = bake(&kitchen, true, run, Some("agent"));
    let dish = dish.unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()));
    assert_eq!(dish.text("home/app/seen"), "12\n5\n");
    assert_eq!(thread.join().unwrap(), (11, 0));
}
