//! Playing a playbook on an image: Ansible beside it, and nothing of Ansible in it.

use kiln_model::recipe::ProvisionStep;
use kiln_store::{Tree, TreePath};

use super::{Bake, Command, Made, Place, Step};
use crate::bake_error::{BakeError, StepError};
use crate::copy::Pick;
use crate::provision::{self, ProvisionError};
use crate::sandbox::{Access, SandboxMount, User};
use crate::secrets::Hidden;
use crate::source::SourceKind;
use crate::stage::tmpfs;
use crate::workbench::assemble;

/// What an image says about its own python, and would mislead that of the tools.
const PYTHON_VARIABLES: [&str; 2] = ["PYTHONHOME", "PYTHONPATH"];

impl Bake<'_> {
    /// Plays a playbook, or finds what came of it.
    pub(super) fn provision(
        &self,
        made: &mut Made,
        step: &ProvisionStep,
        tools: &Made,
        place: &Place,
    ) -> Result<(), BakeError> {
        let (from, began) = (made.clone(), self.begin(place));
        let pick = self.playbook(step).map_err(|error| place.failed(error))?;
        let text = provision_text(step, &pick, tools, &from);
        let taken = tools.key.into_iter().collect();
        let done = Step { place, began, line: &place.what, text, taken };
        self.perform(made, done, |tree| self.play(step, &pick, tools, &from, tree))?;
        if step.network {
            made.unproven.push(format!("`{}` could reach the network", place.what));
        }
        Ok(())
    }

    /// Finds the files that a playbook can use.
    fn playbook(&self, step: &ProvisionStep) -> Result<Pick, StepError> {
        let files = self.files();
        // What is not there is told with what it may have been.
        let mut folder = provision::folder_of(step);
        folder.from.clone_from(&step.playbook);
        Pick::new(&folder, files)?;
        let is_folder = |path| files.get(path).is_some_and(|file| file.kind == SourceKind::Folder);
        if is_folder(&TreePath::parse(step.playbook.as_str())?) {
            return Err(ProvisionError::NotAFile { playbook: step.playbook.clone() }.into());
        }
        Ok(Pick::new(&provision::folder_of(step), files)?)
    }

    /// Plays it over a tree.
    fn play(
        &self,
        step: &ProvisionStep,
        pick: &Pick,
        tools: &Made,
        made: &Made,
        tree: &mut Tree,
    ) -> Result<(), StepError> {
        let store = &self.baker.store;
        let (mut shown, mut playbooks) = (tree.clone(), Tree::new());
        let mut equipped = tools.tree.get(store)?.clone();
        let batch = store.objects.batch();
        provision::furnish(&mut shown, step, &batch)?;
        provision::equip(&mut equipped, &batch)?;
        let folder = provision::folder_of(step);
        pick.apply(&folder, &User::default(), self.files(), &mut playbooks, &batch, made.time)?;
        batch.commit()?;
        let mount = |tree, inner, target: &str, access| SandboxMount {
            tree,
            inner,
            target: target.as_bytes().to_vec(),
            access,
        };
        let [equipped, playbooks] = [equipped, playbooks].map(|tree| store.trees.put(&tree));
        let mounts = [
            mount(assemble(store, &equipped?)?, None, provision::TOOLS, Access::Read),
            mount(assemble(store, &playbooks?)?, Some(provision::PART), provision::PLAYBOOKS, Access::Read),
            mount(tmpfs(provision::MEMORY_BYTES_MAX)?, None, provision::MEMORY, Access::Write),
        ];
        let mut env = made.config.run.env.clone();
        env.retain(|name, _| !PYTHON_VARIABLES.contains(&name.as_str()));
        let argv = ["usr/bin/python3", "kiln/play.py"].map(|path| format!("{}/{path}", provision::TOOLS));
        let command = Command {
            argv: &argv,
            env,
            workdir: provision::PLAYBOOKS,
            user: "",
            network: step.network,
            hidden: Hidden::default(),
            before: None,
        };
        self.command(&command, shown, &mounts, made.time, tree)
            .map_err(|error| provision::explain(error, step))
    }
}

fn provision_text(step: &ProvisionStep, pick: &Pick, tools: &Made, made: &Made) -> String {
    let ProvisionStep { vars, tags, groups, network, .. } = step;
    let (file, driver, inherited, time) = (step.file(), provision::driver(), &made.config.run.env, made.time);
    format!(
        "provision {file:?} by {:?} {driver} vars {vars:?} tags {tags:?} groups {groups:?} env {inherited:?} network {network} \
         time {time}\n{}",
        tools.key,
        pick.describe()
    )
}
