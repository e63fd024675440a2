//! Simulated traffic: a seeded source of random numbers, and services that fail and are slow.

/// xoshiro256++ by Blackman and Vigna (2019), seeded by splitmix64.
pub struct Random([u64; 4]);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number in (0, 1).
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, chance: f64) -> bool {
        self.unit() < chance
    }

    /// A standard normal number, by the polar method.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }
}

/// How long a service takes: log-normal, and sometimes longer.
#[derive(Clone, Copy)]
pub struct Latency {
    pub median_us: f64,
    /// The standard deviation of the logarithm.
    pub sigma: f64,
    /// The share of requests that wait for something slow, and how many times longer they take.
    pub slow: (f64, f64),
}

impl Latency {
    pub fn draw(&self, random: &mut Random) -> u64 {
        let us = self.median_us * (self.sigma * random.normal()).exp();
        let (share, times) = self.slow;
        (if share > 0.0 && random.chance(share) { us * times } else { us }) as u64
    }
}
