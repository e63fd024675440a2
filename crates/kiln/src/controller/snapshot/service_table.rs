//! The services of all revisions, each once.

use std::collections::BTreeMap;

use kiln_model::service::Service;
use kiln_store::Encoded;

use super::DecodeError;

/// Collects services and gives each a place.
#[derive(Default)]
pub(super) struct ServiceTable {
    places: BTreeMap<Vec<u8>, u32>,
    services: Vec<Encoded<Service>>,
}

impl ServiceTable {
    /// The place of a service that is the same in every part.
    pub(super) fn place_of(&mut self, service: &Service) -> u32 {
        let service = Encoded(service.clone());
        let bytes = serde_json::to_vec(&service).expect("wire structs have text keys and no custom failures");
        let next = u32::try_from(self.services.len()).expect("a state has fewer services than 2^32");
        *self.places.entry(bytes).or_insert_with(|| {
            self.services.push(service);
            next
        })
    }

    pub(super) fn into_services(self) -> Vec<Encoded<Service>> {
        self.services
    }
}

/// Finds a service by its place.
pub(super) fn at(services: &[Service], place: u32) -> Result<Service, DecodeError> {
    let found = usize::try_from(place).ok().and_then(|place| services.get(place));
    found.cloned().ok_or_else(|| DecodeError::Impossible(format!("there is no service {place}")))
}
