//! What goes so that the rest fits the disk budget: what is least valuable first, never what can be gone back to.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use kiln_bake::{CacheFolder, CacheFolders, FetchedFile, FetchedFiles};
use kiln_model::{ByteSize, Digest, Position};
use kiln_store::{CollectError, Inventory, Needed};

use super::packing::used_images;
use super::{Collector, CollectorError, Round};
use crate::api::wire;
use crate::runtime::settings::Settings;

/// What does not fit may fit once something is no longer run, which the log tells; looking costs a second in a large store.
const SHORT_EVERY: Duration = Duration::from_secs(60);

/// A look after which nothing was to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// Nothing was stored since then.
    stored: SystemTime,
    budget: Option<ByteSize>,
    /// Up to here the log was known.
    position: Position,
    at: Instant,
    is_short: bool,
}

/// Everything that takes room, when it was looked.
struct Stock {
    store: Inventory,
    caches: Vec<CacheFolder>,
    fetched: Vec<FetchedFile>,
}

impl Stock {
    fn caches_bytes(&self) -> u64 {
        self.caches.iter().map(|cache| cache.bytes).sum()
    }

    fn fetched_bytes(&self) -> u64 {
        self.fetched.iter().map(|file| file.bytes).sum()
    }

    fn bytes(&self) -> u64 {
        self.store.bytes() + self.caches_bytes() + self.fetched_bytes()
    }
}

impl Collector {
    fn budget(&self) -> Result<Option<ByteSize>, CollectorError> {
        Ok(Settings::read(&self.state).map_err(CollectorError::Budget)?.disk_budget)
    }

    fn stock(&self) -> Result<Stock, CollectorError> {
        let folders = CacheFolders::of(&self.store);
        Ok(Stock {
            store: self.store.inventory().map_err(CollectorError::Budget)?,
            caches: folders.list().map_err(CollectorError::Caches)?,
            fetched: FetchedFiles::of(&self.store).list().map_err(CollectorError::Budget)?,
        })
    }

    /// Whether there is more than there may be, of caches or of everything, by what changed since this was last asked.
    pub(super) fn has_grown(&mut self) -> Result<bool, CollectorError> {
        // A bake may need anything; it is looked when it is over.
        if !self.store.leases.holders().is_empty() {
            return Ok(false);
        }
        let (stored, budget) = (self.store.leases.changed().map_err(CollectorError::Budget)?, self.budget()?);
        let position = self.handle.state().position();
        if let Some(looked) = &self.looked
            && (looked.stored, looked.budget) == (stored, budget)
            && (!looked.is_short || looked.position == position || looked.at.elapsed() < SHORT_EVERY)
        {
            return Ok(false);
        }
        if !self.caches_beyond()?.is_empty() {
            return Ok(true);
        }
        let Some(ByteSize(bytes)) = budget else {
            self.note(stored, None, position);
            return Ok(false);
        };
        let used = self.stock()?.bytes();
        if used > bytes {
            return Ok(true);
        }
        let disk = wire::Disk { budget_bytes: bytes, used_bytes: used, held: Vec::new() };
        self.note(stored, Some(disk), position);
        Ok(false)
    }

    fn note(&mut self, stored: SystemTime, disk: Option<wire::Disk>, position: Position) {
        self.looked = Some(Looked {
            stored,
            budget: disk.as_ref().map(|disk| ByteSize(disk.budget_bytes)),
            position,
            at: Instant::now(),
            is_short: disk.as_ref().is_some_and(wire::Disk::is_short),
        });
        *super::locked(&self.disk) = disk;
    }

    /// Settles what goes of caches and of what is needed, so that the rest fits; returns what is expected then, where there is a
    /// budget.
    pub(super) fn fit(&self, round: &mut Round) -> Result<Option<wire::Disk>, CollectorError> {
        let folders = CacheFolders::of(&self.store);
        let mut bounds = folders.bounds().map_err(CollectorError::Caches)?;
        let Some(ByteSize(budget)) = self.budget()? else {
            round.caches = self.caches_beyond()?;
            return Ok(None);
        };
        let mut stock = self.stock()?;
        let mut other = stock.store.packs_bytes() + stock.fetched_bytes();
        let needed_bytes = stock.store.bytes_of(&round.needed);
        bounds.all = bounds.all.min(budget.saturating_sub(needed_bytes + other));
        round.caches = bounds.beyond(&stock.caches);
        // A mirror may have dropped what a retained revision is locked to; the rest can be fetched again.
        for file in stock.fetched.iter().filter(|file| !round.must.names(&file.digest)) {
            if needed_bytes + other <= budget {
                break;
            }
            round.fetched.push(*file);
            other -= file.bytes;
        }
        let bytes_of = |needed: &Needed| stock.store.bytes_of(needed) + other;
        if bytes_of(&round.needed) > budget {
            // The steps between: the next bake does again what is not cached.
            let mut needed = round.must.clone();
            self.need(round, &mut needed, round.names.iter().map(|(_, image)| *image))?;
            if bytes_of(&needed) > budget {
                needed = self.newest_that_fit(round, |needed| bytes_of(needed) <= budget)?;
            }
            round.fitted = true;
            round.needed = needed;
        }
        round.pack = bytes_of(&round.needed) > budget;
        stock.caches.retain(|cache| !round.caches.contains(cache));
        stock.fetched.retain(|file| !round.fetched.contains(file));
        Ok(Some(self.disk_after(round, &stock, budget)?))
    }

    /// What the log needs, and of the images that only a name keeps those that fit, the newest first.
    fn newest_that_fit(
        &self,
        round: &Round,
        fits: impl Fn(&Needed) -> bool,
    ) -> Result<Needed, CollectorError> {
        let mut named: BTreeMap<Digest, Option<SystemTime>> = BTreeMap::new();
        for (name, image) in &round.names {
            let at = named.entry(*image).or_default();
            *at = (*at).max(self.store.images.named_at(name));
        }
        let mut named: Vec<_> = named.into_iter().collect();
        named.sort_by_key(|(image, at)| Reverse((*at, *image)));
        let mut needed = round.must.clone();
        for (image, _) in named {
            let mut more = needed.clone();
            self.need(round, &mut more, [image])?;
            if !fits(&more) {
                break;
            }
            needed = more;
        }
        Ok(needed)
    }

    fn need(
        &self,
        round: &Round,
        needed: &mut Needed,
        roots: impl IntoIterator<Item = Digest>,
    ) -> Result<(), CollectorError> {
        Ok(self.store.need(&round.begun, needed, roots).map_err(CollectError::from)?)
    }

    /// Looks what there is now, and what holds it, for whoever asks for the status.
    pub(super) fn look_again(&mut self) -> Result<Option<wire::Disk>, CollectorError> {
        let stored = self.store.leases.changed().map_err(CollectorError::Budget)?;
        let Some(ByteSize(budget)) = self.budget()? else {
            self.note(stored, None, self.handle.state().position());
            return Ok(None);
        };
        let round = self.begin()?;
        let disk = self.disk_after(&round, &self.stock()?, budget)?;
        self.note(stored, Some(disk.clone()), round.state.position());
        Ok(Some(disk))
    }

    /// What takes the room of what is kept and of the caches that are left.
    fn disk_after(&self, round: &Round, stock: &Stock, budget: u64) -> Result<wire::Disk, CollectorError> {
        let bytes_of = |needed: &Needed| stock.store.bytes_of(needed);
        let mut used = Needed::default();
        self.need(round, &mut used, used_images(&round.state))?;
        let (runs, must, kept) = (bytes_of(&used), bytes_of(&round.must), bytes_of(&round.needed));
        let (packs, caches) = (stock.store.packs_bytes(), stock.caches_bytes());
        let all = [
            ("what runs, and what environments are at", runs),
            ("what can be gone back to", must.saturating_sub(runs)),
            ("packs of what can be gone back to", packs),
            ("images that have a name, and steps of their bakes", kept.saturating_sub(must)),
            ("caches of RUN steps", caches),
            ("packages and files that bakes fetched", stock.fetched_bytes()),
        ];
        let used_bytes = all.iter().map(|(_, bytes)| bytes).sum();
        let mut disk = wire::Disk { budget_bytes: budget, used_bytes, held: Vec::new() };
        if disk.is_short() {
            let held = all.into_iter().filter(|(_, bytes)| *bytes > 0);
            disk.held = held.map(|(what, bytes)| wire::Held { what: what.into(), bytes }).collect();
            disk.held.sort_by_key(|held| Reverse(held.bytes));
        }
        Ok(disk)
    }
}
