//! What makes going back unsafe, on the wire.

use kiln_core::Hazard;

use super::wire;

/// A hazard as programs and people read it.
pub(crate) fn hazard(found: &Hazard) -> wire::Hazard {
    let code = match found {
        Hazard::Migrated { .. } => "volume_migrated",
        Hazard::Shared { .. } => "volume_shared",
        Hazard::RouteTaken { .. } => "route_taken",
    };
    wire::Hazard {
        code: code.into(),
        text: found.to_string(),
        service: found.service().map(ToString::to_string),
    }
}
