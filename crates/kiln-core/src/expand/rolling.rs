//! A rolling service: a few slots at a time, in waves if it declares any.

use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{Slots, Step};
use kiln_model::service::{Service, Strategy, Waves};
use kiln_model::{ServiceName, Weight};

use super::forward::{Between, Forward, Manner};
use super::moves::Enter;
use super::runs;

impl Forward<'_> {
    /// The steps of a service that moves a few slots at a time.
    pub(super) fn roll(&mut self, spec: &RevisionSpec, name: &ServiceName) {
        let service = &spec.services[name];
        let Manner::Roll { batch, old_first } = self.manner(service) else { return };
        let Some(moves) = self.moves.get(name) else { return };
        // What is down already has nothing to lose, and may be what the new revision repairs.
        let mut order: Vec<&Enter> = moves.enter.iter().collect();
        order.sort_by_key(|slot| (slot.is_strong, slot.ordinal));
        let order: Vec<u32> = order.into_iter().map(|slot| slot.ordinal).collect();
        let waves = waves(service).filter(|_| self.manners.tries_out);
        let between = Between::of(self, service);
        self.steps.extend(between.before.iter().cloned());
        let mut moved = 0;
        for end in ends(waves, order.len()) {
            for slots in order[moved..end].chunks(batch) {
                moved += slots.len();
                let serve_routes = moved == order.len() && self.brings_routes();
                self.steps.extend(replace(
                    service,
                    &between,
                    runs(name, slots.iter().copied()),
                    old_first,
                    serve_routes,
                ));
            }
            if let Some(waves) = waves.filter(|_| moved < order.len()) {
                let slots = runs(name, order[..moved].iter().copied());
                self.steps.push(Step::Soak { slots, span: waves.soak });
            }
        }
    }
}

fn waves(service: &Service) -> Option<&Waves> {
    match &service.strategy {
        Strategy::Rolling { waves, .. } => waves.as_deref(),
        Strategy::BlueGreen | Strategy::StopThenStart | Strategy::Canary(_) => None,
    }
}

/// How many slots have moved after each wave; the last one brings the rest.
fn ends(waves: Option<&Waves>, all: usize) -> Vec<usize> {
    let count = u32::try_from(all).unwrap_or(u32::MAX);
    let sizes = waves.into_iter().flat_map(|waves| &waves.sizes);
    let mut ends: Vec<usize> = Vec::new();
    for end in sizes.map(|size| usize::try_from(size.of(count)).unwrap_or(all)).chain([all]) {
        // Of a few slots one and a quarter may be the same: then there is nothing between to wait for.
        if end > ends.last().copied().unwrap_or(0) {
            ends.push(end);
        }
    }
    ends
}

/// The steps that replace these slots together.
fn replace(
    service: &Service,
    between: &Between,
    slots: Vec<Slots>,
    old_first: bool,
    serve_routes: bool,
) -> Vec<Step> {
    let shift = Step::Shift { slots: slots.clone(), weight: Weight::FULL, serve_routes };
    let create = Step::Create { slots: slots.clone() };
    let wait = Step::WaitHealthy { slots: slots.clone(), within: service.bounds.progress_deadline };
    let drain = Step::Drain { slots: slots.clone(), within: service.bounds.drain_deadline };
    let retire = Step::Retire { slots };
    let new = chain(create, &between.created, wait, &between.ready);
    let old = chain(drain, &between.drained, retire, &between.retired);
    match old_first {
        true => [vec![shift], old, new].concat(),
        false => [new, vec![shift], between.moved.clone(), old].concat(),
    }
}

fn chain(first: Step, between: &[Step], second: Step, after: &[Step]) -> Vec<Step> {
    [&[first], between, &[second], after].concat()
}

#[cfg(test)]
mod tests {
    use kiln_model::Millis;
    use kiln_model::service::WaveSize;

    use super::*;

    #[test]
    fn each_wave_brings_more_and_the_last_one_the_rest() {
        let share = |per_mille| WaveSize::Share(Weight::new(per_mille).unwrap());
        let waves = Waves { sizes: vec![WaveSize::Count(1), share(250), share(500)], soak: Millis(1) };
        let ends = |all| ends(Some(&waves), all);
        assert_eq!(ends(8), [1, 2, 4, 8]);
        assert_eq!(ends(9), [1, 3, 5, 9], "a part of an instance is one");
        assert_eq!(ends(2), [1, 2]);
        assert_eq!(ends(1), [1]);
        assert_eq!(ends(0), [0usize; 0]);
        assert_eq!(super::ends(None, 3), [3]);
    }
}
