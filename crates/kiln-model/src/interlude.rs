//! What a rollout of a service does between its moves, because its stack says so.

use crate::service::Gate;

/// What is done before, between and after the moves of a rollout of one service. Each list is gone through in its order.
///
/// Where old instances go before new ones start ([`crate::service::Strategy::is_old_first`]), `drained` and `retired` come
/// before `created`, and `moved` is empty: who is healthy has the requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interludes {
    /// Before anything of it moves.
    pub before: Vec<Gate>,
    /// The new instances exist.
    pub created: Vec<Gate>,
    /// They are healthy; without requests, if old ones have them.
    pub ready: Vec<Gate>,
    /// They have all the requests, and the old ones could still answer.
    pub moved: Vec<Gate>,
    /// The old ones have none in flight.
    pub drained: Vec<Gate>,
    /// The old ones are gone, or kept warm.
    pub retired: Vec<Gate>,
}

impl Interludes {
    /// Returns the lists with the names of their moments.
    pub fn lists(&self) -> [(&'static str, &[Gate]); 6] {
        [
            ("before", &self.before),
            ("created", &self.created),
            ("ready", &self.ready),
            ("moved", &self.moved),
            ("drained", &self.drained),
            ("retired", &self.retired),
        ]
    }

    /// Returns everything that is done.
    pub fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.lists().into_iter().flat_map(|(_, gates)| gates)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.gates().next().is_none()
    }
}
