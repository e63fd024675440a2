//! `RUN --mount=type=secret`: who sees a value, who does not, and what is done where there is none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_bake::{BakeError, Secrets, SecretsError};
use kiln_model::SecretName;
use kiln_model::recipe::DockerfileSource;
use kiln_store::sealed::SecretValue;

use crate::fixture::causes;
use crate::kitchen::{Dish, Kitchen, dockerfile};

/// Values, and how often they were read.
#[derive(Debug, Default)]
struct Safe {
    values: BTreeMap<&'static str, &'static str>,
    reads: Mutex<usize>,
}

impl Secrets for Safe {
    fn read(&self, name: &SecretName) -> Result<Option<SecretValue>, SecretsError> {
        *self.reads.lock().unwrap() += 1;
        Ok(self.values.get(name.as_str()).map(|value| SecretValue::new(value.as_bytes().to_vec())))
    }
}

fn safe(values: &[(&'static str, &'static str)]) -> Arc<Safe> {
    Arc::new(Safe { values: values.iter().copied().collect(), reads: Mutex::default() })
}

fn source() -> DockerfileSource {
    let secrets = ["token", "key"].map(|name| (name.to_owned(), SecretName::new(name).unwrap()));
    DockerfileSource { secrets: secrets.into(), ..dockerfile("web") }
}

fn bake(kitchen: &Kitchen, text: &str, safe: &Arc<Safe>) -> Result<Dish, BakeError> {
    kitchen.write("web/Dockerfile", text);
    kitchen.bake_with_secrets(&Kitchen::stack(source()), safe.clone())
}

fn refused(kitchen: &Kitchen, text: &str, safe: &Arc<Safe>) -> String {
    match bake(kitchen, text, safe) {
        Ok(_) => panic!("it should have been refused: {text}"),
        Err(BakeError::Dockerfile { problems }) => problems
            .iter()
            .map(|problem| format!("{problem} ({})", problem.help.clone().unwrap_or_default()))
            .collect(),
        Err(error) => format!("{}\n{}\n{:?}", causes(&error), error.log(), error.hint()),
    }
}

#[test]
fn a_command_reads_a_secret_as_a_file_or_a_variable_and_nothing_of_it_stays() {
    let kitchen = Kitchen::new();
    let safe = safe(&[("token", "correct-horse"), ("key", "line one\nline two\n")]);
    let dish = bake(
        &kitchen,
        "FROM os\nARG which=token\nWORKDIR /w\n\
         RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /seen && stat -c '%a %u:%g' /run/secrets/token >> /seen\n\
         RUN --mount=id=$which,type=secret,target=sub/t,mode=0444,uid=1000,gid=1001 stat -c '%a %u:%g' sub/t >> /seen && \
             ! echo x > sub/t 2>/dev/null\n\
         RUN --mount=type=secret,id=token,env=TOKEN test ${#TOKEN} = 13 && ! test -e /run/secrets\n\
         RUN --mount=type=secret,id=token,env=TOKEN,target=/t test \"$TOKEN\" = \"$(cat /t)\" \n\
         RUN --mount=type=secret,target=/etc/key,required wc -l < /etc/key >> /seen\n\
         USER 1000\nRUN --mount=type=secret,id=token ! cat /run/secrets/token 2>/dev/null\n",
        &safe,
    )
    .unwrap_or_else(|error| panic!("{}\n{}", causes(&error), error.log()));
    assert_eq!(dish.text("seen"), "13\n400 0:0\n444 1000:1001\n2\n");
    for gone in ["run", "w/sub", "t", "etc/key"] {
        assert!(!dish.has(gone), "{gone}");
    }
    let kept =
        std::process::Command::new("grep").args(["-rla", "correct-horse"]).arg(kitchen.state()).output();
    let kept = kept.unwrap().stdout;
    assert!(kept.is_empty(), "{}", String::from_utf8_lossy(&kept));
}

#[test]
fn another_value_is_no_other_step_and_what_is_found_reads_none() {
    let kitchen = Kitchen::new();
    let text = "FROM os\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /seen\n";
    let first = safe(&[("token", "correct-horse")]);
    assert_eq!(bake(&kitchen, text, &first).unwrap().text("seen"), "13\n");
    for other in [safe(&[("token", "battery-staple-7")]), safe(&[])] {
        assert_eq!(bake(&kitchen, text, &other).unwrap().text("seen"), "13\n");
        assert_eq!(*other.reads.lock().unwrap(), 0);
    }
    // Another place is another step.
    let moved = text.replace("id=token", "id=token,target=/run/secrets/token,mode=0444");
    let other = safe(&[("token", "battery-staple-7")]);
    assert_eq!(bake(&kitchen, &moved, &other).unwrap().text("seen"), "16\n");
}

#[test]
fn what_is_required_is_missed_at_its_line_and_what_is_not_leaves_no_file() {
    let kitchen = Kitchen::new();
    let empty = safe(&[]);
    let text = "FROM os\nRUN true\nRUN --mount=type=secret,id=token,required=true true\n";
    let said = refused(&kitchen, text, &empty);
    assert!(said.contains("web/Dockerfile:3") && said.contains("`secret.token` has no value"), "{said}");
    let said = refused(&kitchen, &text.replace("token", "tokem"), &empty);
    assert!(said.contains("web/Dockerfile:3") && said.contains("did you mean `token`"), "{said}");
    // What no stage of the target needs is not missed.
    let other = "FROM os AS other\nRUN --mount=type=secret,id=none,required true\nFROM os\nRUN true\n";
    bake(&kitchen, other, &empty).unwrap();
    for id in ["token", "none"] {
        let text = format!(
            "FROM os\nRUN --mount=type=secret,id={id},env=T,target=/run/secrets/it test -z \"$T\" && ! test -e /run/secrets && touch /done\n"
        );
        assert!(bake(&kitchen, &text, &empty).unwrap().has("done"));
    }
}

#[test]
fn a_value_is_neither_in_the_output_of_a_command_nor_in_what_it_leaves() {
    let kitchen = Kitchen::new();
    let safe = safe(&[("token", "correct-horse"), ("key", "-----BEGIN KEY-----\nabcdefghij\n")]);
    let said = refused(
        &kitchen,
        "FROM os\nRUN --mount=type=secret,id=token --mount=type=secret,id=key cat /run/secrets/token; echo; tail -n 1 /run/secrets/key; exit 3\n",
        &safe,
    );
    assert!(said.contains("***\n***\n") && !said.contains("horse") && !said.contains("abcdef"), "{said}");
    let text = "FROM os\nRUN --mount=type=secret,id=token mkdir -p /etc/app && (echo url=; cat /run/secrets/token) > /etc/app/rc\n";
    let said = refused(&kitchen, text, &safe);
    assert!(said.contains("the secret `token` is in /etc/app/rc"), "{said}");
    assert!(said.contains("remove it in the same RUN") && !said.contains("horse"), "{said}");
    let tidy = text.replace("/etc/app/rc\n", "/etc/app/rc && rm /etc/app/rc\n");
    assert!(!bake(&kitchen, &tidy, &safe).unwrap().has("etc/app/rc"));
    // Where nothing of the image is, it may be.
    let elsewhere = "FROM os\nRUN --mount=type=secret,id=token --mount=type=tmpfs,target=/t cat /run/secrets/token > /t/x\n";
    bake(&kitchen, elsewhere, &safe).unwrap();
}
