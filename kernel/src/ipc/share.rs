//! Which clients hold how many of a server's workers on one CPU, so that none holds all of them.
//!
//! A worker is held beyond the others' turns only where it gave its replica up: it waits, or calls another server. Such
//! workers are *away* until they reply, also when their caller has gone. A client, by the badge that it calls with,
//! gets another worker only while it holds fewer than are left: so the first takes at most half of them, the next one
//! half of the rest, and one is left for a client that holds none as long as there are few such clients (Choudhury and
//! Hahne, IEEE/ACM Transactions on Networking 1998, "dynamic queue length thresholds", with a factor of one). Clients that
//! a server does not tell apart, which have no badge, have no shares.
//!
//! While a worker is away the idle ones are kept apart ([`super::replica`]), so that every call of the server looks here
//! first; while none is, calls and replies know nothing of it.

use abi::Error;

use super::replica::MOST_WORKERS;

const WORDS: usize = MOST_WORKERS as usize / u64::BITS as usize;

/// The workers of a replica that are away.
#[derive(Debug)]
pub struct Shares {
    /// A bit for each worker, by its stack.
    away: [u64; WORDS],
    /// Whom those serve.
    badges: [u64; MOST_WORKERS as usize],
    count: u32,
    /// Most that were away at a time since [`Shares::forget_peak`].
    peak: u32,
}

impl Shares {
    /// Nobody is away.
    #[must_use]
    pub const fn new() -> Self {
        Self { away: [0; WORDS], badges: [0; MOST_WORKERS as usize], count: 0, peak: 0 }
    }

    /// How many are away.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The most that were away at a time, since this was asked last.
    pub fn forget_peak(&mut self) -> u32 {
        core::mem::replace(&mut self.peak, self.count)
    }

    /// The worker with this stack, which serves `badge`, goes away.
    pub fn leave(&mut self, stack: u8, badge: u64) {
        self.away[usize::from(stack) / 64] |= 1 << (stack % 64);
        self.badges[usize::from(stack)] = badge;
        self.count += 1;
        self.peak = self.peak.max(self.count);
    }

    /// It has replied, or ended.
    pub fn come_back(&mut self, stack: u8) {
        self.away[usize::from(stack) / 64] &= !(1 << (stack % 64));
        self.count -= 1;
    }

    /// Workers that serve `badge` and are away. A step for each that is.
    fn held_by(&self, badge: u64) -> u32 {
        let mut held = 0;
        for (word, &bits) in self.away.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                let stack = word * 64 + bits.trailing_zeros() as usize;
                held += u32::from(self.badges[stack] == badge);
                bits &= bits - 1;
            }
        }
        held
    }

    /// Whether `badge` may have another one of `workers` that the server may have.
    ///
    /// # Errors
    /// [`Error::ShareUsed`] if not.
    pub fn check(&self, badge: u64, workers: u32) -> Result<(), Error> {
        let held = if badge == 0 { 0 } else { self.held_by(badge) };
        if held == 0 || held < workers.saturating_sub(self.count) { Ok(()) } else { Err(Error::ShareUsed) }
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many workers each of `clients` clients gets one after the other, each as many as it can.
    fn taken(workers: u32, clients: u64) -> Vec<u32> {
        let mut shares = Shares::new();
        let take = |badge| {
            let before = shares.count();
            while shares.count() < workers && shares.check(badge, workers).is_ok() {
                shares.leave(u8::try_from(shares.count()).expect("few"), badge);
            }
            shares.count() - before
        };
        (1..=clients).map(take).collect()
    }

    #[test]
    fn a_client_gets_half_of_what_is_left() {
        assert_eq!(taken(8, 4), [4, 2, 1, 1]);
        assert_eq!(taken(2, 2), [1, 1]);
        assert_eq!(taken(1, 2), [1, 0]);
        assert_eq!(taken(MOST_WORKERS, 2), [128, 64]);
    }

    #[test]
    fn who_has_no_badge_has_no_share() {
        let mut shares = Shares::new();
        (0..3).for_each(|stack| shares.leave(stack, 0));
        assert_eq!(shares.check(0, 4), Ok(()));
    }

    #[test]
    fn what_comes_back_can_be_taken_again() {
        let mut shares = Shares::new();
        shares.leave(200, 7);
        shares.leave(3, 7);
        assert_eq!(shares.check(7, 4), Err(Error::ShareUsed));
        shares.come_back(200);
        assert_eq!(shares.check(7, 4), Ok(()));
        assert_eq!((shares.count(), shares.forget_peak(), shares.forget_peak()), (1, 2, 1));
    }
}
