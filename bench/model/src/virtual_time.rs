//! The guest's virtual time: what its timers run by.
//!
//! Until the guest's workloads begin it follows the host, so that boot-time calibration works. From then
//! on it follows the lowest clock of the CPUs that are on; while all CPUs are halted it follows the host
//! again, or nothing would ever end the wait. It never goes back.
use std::sync::Mutex;

/// Virtual time.
#[derive(Debug)]
pub struct VirtualTime {
    cycles_per_microsecond: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    modelled: bool,
    /// Virtual nanoseconds, and the parts of a microsecond's cycles that did not make one yet.
    now: u64,
    rest: u64,
    /// Position in modelled cycles that `now` belongs to.
    position: u64,
    host: u64,
}

impl VirtualTime {
    /// Virtual time for a machine of `megahertz`, following the host.
    #[must_use]
    pub fn new(megahertz: u32) -> Self {
        Self { cycles_per_microsecond: megahertz.into(), inner: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with this lock")
    }

    /// From now on, virtual time follows the model, whose lowest clock is `position`.
    pub fn follow_model(&self, position: Option<u64>) {
        let mut inner = self.lock();
        if !inner.modelled {
            inner.modelled = true;
            inner.position = position.unwrap_or(0);
        }
    }

    /// True when virtual time follows the model.
    #[must_use]
    pub fn is_modelled(&self) -> bool {
        self.lock().modelled
    }

    /// Takes note of the lowest clock of the CPUs that are on (none when all are halted) and of the host's
    /// time; returns virtual nanoseconds.
    pub fn update(&self, position: Option<u64>, host: u64) -> u64 {
        let mut inner = self.lock();
        if inner.host == 0 {
            // The first reading: virtual time starts where the host is.
            inner.now = host;
        } else {
            let passed = host.saturating_sub(inner.host);
            match position {
                Some(position) if inner.modelled => self.advance(&mut inner, position),
                _ => {
                    inner.now += passed;
                    if inner.modelled {
                        inner.position += passed * self.cycles_per_microsecond / 1000;
                    }
                }
            }
        }
        inner.host = inner.host.max(host);
        inner.now
    }

    fn advance(&self, inner: &mut Inner, position: u64) {
        let cycles = position.saturating_sub(inner.position);
        let parts = cycles * 1000 + inner.rest;
        inner.now += parts / self.cycles_per_microsecond;
        inner.rest = parts % self.cycles_per_microsecond;
        inner.position += cycles;
    }

    /// The modelled time that virtual time has reached.
    #[must_use]
    pub fn model_position(&self) -> u64 {
        self.lock().position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_host_then_the_model_then_the_host_while_all_are_halted() {
        let time = VirtualTime::new(2000);
        assert_eq!(time.update(Some(5), 1_000), 1_000);
        assert_eq!(time.update(Some(99), 1_700), 1_700);
        time.follow_model(Some(10_000));
        assert_eq!(time.update(Some(12_000), 90_000), 2_700, "2000 cycles are a microsecond");
        assert_eq!(time.update(Some(12_001), 90_000), 2_700, "half a nanosecond is kept");
        assert_eq!(time.update(Some(12_002), 90_000), 2_701);
        assert_eq!(time.update(None, 90_500), 3_201);
        assert_eq!(time.model_position(), 13_002);
    }

    #[test]
    fn never_goes_back() {
        let time = VirtualTime::new(1000);
        time.update(None, 5_000);
        time.follow_model(Some(100));
        let before = time.update(Some(900), 6_000);
        assert_eq!(time.update(Some(200), 5_500), before);
    }
}
