//! How an image runs, with all that its config tells and nothing of Kiln needs.

use kiln_model::image::ImageConfig;
use kiln_model::instance::DockerHealth;

/// The settings of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// What decides how an instance runs.
    pub(crate) run: ImageConfig,
    /// The names of variables in the order in which a Dockerfile set them; others follow by name.
    pub(crate) order: Vec<String>,
    /// How health is asked, as Docker does.
    pub(crate) health: Option<DockerHealth>,
    /// What runs commands of the shell form; empty means `/bin/sh -c`.
    pub(crate) shell: Vec<String>,
    /// Instructions for whatever is made from it.
    pub(crate) on_build: Vec<String>,
    /// Who made it.
    pub(crate) author: String,
}

impl Settings {
    /// Returns the variables in their order.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&String, &String)> {
        let ordered = self.order.iter().filter_map(|name| self.run.env.get_key_value(name));
        ordered.chain(self.run.env.iter().filter(|(name, _)| !self.order.contains(name)))
    }

    /// Sets a variable; a new one comes after all others.
    pub(crate) fn set_env(&mut self, name: &str, value: String) {
        self.fix_order();
        if self.run.env.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// Gives every variable its place in the order.
    fn fix_order(&mut self) {
        if self.order.len() < self.run.env.len() {
            self.order = self.env().map(|(name, _)| name.clone()).collect();
        }
    }

    /// Lays an image's own settings over those of what it is made from, as Docker does.
    pub(crate) fn with(&self, own: &ImageConfig) -> Self {
        let parent = &self.run;
        let or = |own: &str, parent: &str| if own.is_empty() { parent.to_owned() } else { own.to_owned() };
        let union = |parent: &[String], own: &[String]| {
            let mut all = [parent, own].concat();
            all.sort();
            all.dedup();
            all
        };
        let mut run = ImageConfig {
            env: parent.env.clone(),
            labels: parent.labels.clone(),
            workdir: or(&own.workdir, &parent.workdir),
            user: or(&own.user, &parent.user),
            stop_signal: or(&own.stop_signal, &parent.stop_signal),
            expose: union(&parent.expose, &own.expose),
            volumes: union(&parent.volumes, &own.volumes),
            health: own.health.clone().or_else(|| parent.health.clone()),
            ..ImageConfig::default()
        };
        run.env.extend(own.env.clone());
        run.labels.extend(own.labels.clone());
        let new_entrypoint = !own.entrypoint.is_empty();
        run.entrypoint = if new_entrypoint { own.entrypoint.clone() } else { parent.entrypoint.clone() };
        // The parent's arguments were for the parent's program.
        let inherits = own.command.is_empty() && !new_entrypoint;
        run.command = if inherits { parent.command.clone() } else { own.command.clone() };
        Self { run, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_entrypoint_drops_the_parents_command() {
        let parent = ImageConfig { command: vec!["sh".into()], user: "a".into(), ..ImageConfig::default() };
        let parent = Settings { run: parent, ..Settings::default() };
        let own = ImageConfig { entrypoint: vec!["/app".into()], ..ImageConfig::default() };
        let merged = parent.with(&own).run;
        assert!(merged.command.is_empty() && merged.user == "a");
        assert_eq!(parent.with(&ImageConfig::default()).run.command, ["sh"]);
    }

    #[test]
    fn variables_keep_the_order_in_which_they_were_set() {
        let env = [("PATH".to_owned(), "/bin".to_owned())].into();
        let mut settings =
            Settings { run: ImageConfig { env, ..ImageConfig::default() }, ..Settings::default() };
        for name in ["Z", "A", "PATH"] {
            settings.set_env(name, "1".into());
        }
        let names = |settings: &Settings| settings.env().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&settings), ["PATH", "Z", "A"]);
        let own = [("B".to_owned(), "2".to_owned())].into();
        let child = settings.with(&ImageConfig { env: own, ..ImageConfig::default() });
        assert_eq!(names(&child), ["PATH", "Z", "A", "B"]);
    }
}
