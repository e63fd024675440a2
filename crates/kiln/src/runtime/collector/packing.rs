//! Packing of what is kept, and used by nothing that runs or is about to.

use std::collections::BTreeSet;

use kiln_core::State;
use kiln_model::Digest;
use kiln_store::{Cold, CollectError, Needed, PackError};

use super::{Collector, CollectorError, Round};
use crate::api::wire;

impl Collector {
    /// What packing would begin with.
    pub(super) fn look_for_cold(&self, round: &Round) -> Result<wire::Packing, CollectorError> {
        let cold = self.cold(round, &round.state)?;
        Ok(wire::Packing { files: cold.files(), bytes: cold.bytes(), packs_bytes: self.packs_bytes()? })
    }

    /// Packs what is cold. Bakes and starts go on meanwhile, until at the end the plain files go.
    pub(super) fn pack(&self) -> Result<wire::Packing, CollectorError> {
        let cold = {
            let round = self.begin()?;
            self.cold(&round, &round.state)?
        };
        self.store.pack(&cold)?;
        let round = self.begin()?;
        let held = self.store.hold_starts().map_err(PackError::from)?;
        // What was mounted before the mounts were held off was asked for before: by now it stands in the state.
        let state = self.handle.settled().map_err(|_| CollectorError::Doubt)?;
        if self.handle.is_in_doubt() {
            return Err(CollectorError::Doubt);
        }
        let cold = self.cold(&round, &state)?;
        let shed = self.store.shed(&round.begun, &held, &cold)?;
        Ok(wire::Packing { files: shed.files, bytes: shed.bytes, packs_bytes: self.packs_bytes()? })
    }

    fn packs_bytes(&self) -> Result<u64, CollectorError> {
        Ok(self.store.packed_bytes().map_err(PackError::from)?)
    }

    /// What is kept and not used.
    fn cold(&self, round: &Round, state: &State) -> Result<Cold, CollectorError> {
        let mut used = Needed::default();
        // The last bake of each image is what is released next, and what the next bake goes on from.
        let named = round.names.iter().map(|(_, image)| *image);
        let roots = used_images(state).into_iter().chain(named);
        self.store.need(&round.begun, &mut used, roots).map_err(CollectError::from)?;
        Ok(self.store.cold(&round.begun, &round.needed, &used).map_err(CollectError::from)?)
    }
}

/// The images of all that exists, warm instances included, and of the revisions that environments are at or move to.
pub(super) fn used_images(state: &State) -> BTreeSet<Digest> {
    let mut used: BTreeSet<Digest> = state.instances().map(|instance| instance.spec.image).collect();
    used.extend(state.checks().map(|check| check.image));
    for env in state.environments() {
        for number in [env.current, env.target(), env.routes] {
            let services = env.spec(number).into_iter().flat_map(|spec| spec.services.values());
            used.extend(services.map(|service| service.spec.image));
        }
    }
    used
}
