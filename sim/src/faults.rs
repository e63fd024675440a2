//! What goes wrong in a history: chosen by its seed, so that some are hard and some are almost kind.

use kiln::controller::Peer;

use crate::queue::Queue;
use crate::rng::Rng;

/// How often what goes wrong.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Until when anything goes wrong, in milliseconds.
    pub until: u64,
    /// Messages that are lost, in a thousand.
    pub loss: u64,
    /// Messages that come twice, in a thousand; the second time up to a minute later.
    pub repeat: u64,
    /// The longest way of a message, in milliseconds.
    pub delay: u64,
    /// Steps of the controller in which it dies, in a thousand.
    pub fuse: u64,
    /// Appends of which nobody knows whether they took place, in a thousand.
    pub unknown: u64,
    /// Versions that are bad, in a thousand.
    pub bad: u64,
    /// Whether instances fail by themselves.
    pub wild: bool,
    /// Whether bad versions turn good when the faults end, as if their cause was outside.
    pub cured: bool,
    /// Steps of a rollout at whose beginning somebody or something meddles, in a thousand.
    pub meddling: u64,
    /// Requests to a service between two counts of the edge; 0 where nobody comes.
    pub requests: u64,
    /// How often the controller dies or is held up, the edge or the host dies, a link breaks, the clock jumps, the disk is
    /// full or a socket is taken: the mean time between two of them in milliseconds, 0 for never.
    pub every: [u64; 7],
}

/// Something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The controller's process dies between two steps, and is started again after so many milliseconds.
    KillController(u64),
    /// The controller's process is held up; another one is started; then the old one wakes up.
    StallController(u64),
    /// The edge's process dies and comes back.
    KillEdge(u64),
    /// The host's process dies and comes back.
    KillHost(u64),
    /// What is on the way is lost, and the link is made again.
    BreakLink(Peer),
    /// Somebody sets the wall clock.
    ClockJump(i64),
    /// The disk is full for so many milliseconds.
    FullDisk(u64),
    /// Another program listens on this port for so many milliseconds.
    TakeSocket(u16, u64),
}

impl Faults {
    /// Chooses what goes wrong.
    pub fn choose(rng: &mut Rng) -> Self {
        let until = rng.between(60_000, 400_000);
        let mut some = |most: u64| if rng.chance(600) { rng.between(1, most) } else { 0 };
        let (loss, repeat, fuse, unknown) = (some(80), some(80), some(40), some(150));
        let bad = some(500);
        let mut mean = |shortest: u64| if some(1) == 1 { shortest + some(60_000) } else { 0 };
        let every =
            [mean(4_000), mean(10_000), mean(10_000), mean(20_000), mean(8_000), mean(20_000), mean(20_000)];
        let delay = *rng.pick(&[2, 40, 400, 4_000]);
        let (wild, cured) = (rng.chance(700), rng.chance(750));
        let (meddling, requests) = (*rng.pick(&[0, 50, 300]), *rng.pick(&[0, 0, 1, 40, 20_000]));
        Self { meddling, requests, until, loss, repeat, delay, fuse, unknown, bad, wild, cured, every }
    }

    /// Nothing does.
    pub const fn none() -> Self {
        Self {
            until: 0,
            loss: 0,
            repeat: 0,
            delay: 5,
            fuse: 0,
            unknown: 0,
            bad: 0,
            wild: false,
            cured: true,
            meddling: 0,
            requests: 0,
            every: [0; 7],
        }
    }

    /// Lays out when what happens.
    pub fn schedule<T>(&self, rng: &mut Rng, queue: &mut Queue<T>, wrap: impl Fn(Fault) -> T) {
        for (kind, mean) in self.every.iter().enumerate() {
            if *mean == 0 {
                continue;
            }
            let mut at = rng.between(1, 2 * mean);
            while at < self.until {
                queue.add(at, wrap(Self::fault(rng, kind)));
                at += rng.between(1, 2 * mean);
            }
        }
    }

    fn fault(rng: &mut Rng, kind: usize) -> Fault {
        // Mostly as short as a supervisor needs, sometimes longer than any deadline.
        let away = if rng.chance(100) { rng.between(20_000, 150_000) } else { rng.between(10, 2_000) };
        match kind {
            0 if rng.chance(200) => Fault::StallController(away.min(5_000)),
            0 => Fault::KillController(away),
            1 => Fault::KillEdge(away),
            2 => Fault::KillHost(away),
            3 => Fault::BreakLink(*rng.pick(&[Peer::Host, Peer::Edge])),
            4 => {
                let by = *rng.pick(&[1_500, 2_500, 60_000, 3_600_000, 86_400_000]);
                Fault::ClockJump(if rng.chance(500) { by } else { -by })
            }
            5 => Fault::FullDisk(away),
            _ => Fault::TakeSocket(8000 + 10 * rng.below(3) as u16 + rng.below(2) as u16, away * 4),
        }
    }
}
