//! Time: a reference clock of the firmware, and the rate of the local APIC's timer measured by it.

use spin::Once;
use x86_64::instructions::port::Port;

use super::acpi::ReferenceTimer;
use super::apic::Apic;

/// Ticks a second of the ACPI power-management timer.
const PM_TIMER_HERTZ: u64 = 3_579_545;
/// Femtoseconds in a microsecond.
const FEMTO_PER_MICRO: u64 = 1_000_000_000;
/// How long the timer is compared, in microseconds.
const CALIBRATION: u64 = 10_000;

const HPET_CAPABILITIES: usize = 0;
const HPET_CONFIGURATION: usize = 2;
const HPET_COUNTER: usize = 30;

/// A running clock of known rate.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// HPET: where its registers are mapped, and femtoseconds a tick.
    Hpet(u64, u64),
    /// Power-management timer: port and the mask of the bits that it counts.
    PowerManagement(u16, u64),
}

static CLOCK: Once<Clock> = Once::new();
static STAMPS_PER_MS: Once<u64> = Once::new();
static APIC_TICKS_PER_MS: Once<u64> = Once::new();

/// Starts the reference clock; `map` maps a physical page of device registers. Boot CPU, once.
pub fn start(timer: ReferenceTimer, map: impl FnOnce(u64) -> u64) {
    let clock = match timer {
        ReferenceTimer::Hpet(physical) => {
            let registers = map(physical) as *mut u64;
            // SAFETY: `map` mapped the registers that the firmware named; counting changes nothing else.
            let period = unsafe {
                registers.add(HPET_CONFIGURATION).write_volatile(1);
                registers.add(HPET_CAPABILITIES).read_volatile() >> 32
            };
            Clock::Hpet(registers as u64, period)
        }
        ReferenceTimer::PowerManagement(port, wide) => {
            Clock::PowerManagement(port, if wide { u32::MAX.into() } else { 0xff_ffff })
        }
    };
    CLOCK.call_once(|| clock);
}

impl Clock {
    fn count(self) -> u64 {
        match self {
            // SAFETY: `start` got this address from the kernel's mapping of the registers.
            Self::Hpet(registers, _) => unsafe {
                (registers as *const u64).add(HPET_COUNTER).read_volatile()
            },
            // SAFETY: reading the timer's port has no effect.
            Self::PowerManagement(port, mask) => unsafe { u64::from(Port::<u32>::new(port).read()) & mask },
        }
    }

    /// Counts as nanoseconds. The power-management timer wraps every few seconds and is only good for waiting
    /// at boot; machines without an HPET have no deadlines.
    fn nanos(self, count: u64) -> u64 {
        const FEMTO_PER_NANO: u128 = 1_000_000;
        match self {
            Self::Hpet(_, period) => (u128::from(count) * u128::from(period) / FEMTO_PER_NANO) as u64,
            Self::PowerManagement(..) => 0,
        }
    }

    fn micros_between(self, start: u64, end: u64) -> u64 {
        match self {
            Self::Hpet(_, period) => (end.wrapping_sub(start)).saturating_mul(period) / FEMTO_PER_MICRO,
            Self::PowerManagement(_, mask) => {
                (end.wrapping_sub(start) & mask).saturating_mul(1_000_000) / PM_TIMER_HERTZ
            }
        }
    }
}

/// Waits `micros` microseconds, at most about a second, by spinning. For boot only.
pub fn spin_for(micros: u64) {
    let Some(&clock) = CLOCK.get() else {
        // No clock: be generous with instructions instead.
        (0..micros * 1_000).for_each(|_| core::hint::spin_loop());
        return;
    };
    let start = clock.count();
    while clock.micros_between(start, clock.count()) < micros {
        core::hint::spin_loop();
    }
}

/// What the clocks to measure said at one moment of the reference clock.
struct Reading {
    /// The reference clock before and after the others were read.
    reference: [u64; 2],
    stamp: u64,
    ticks_left: u32,
}

impl Reading {
    fn of(clock: Clock, apic: &Apic) -> Self {
        let before = clock.count();
        let (stamp, ticks_left) = (stamp(), apic.timer_left());
        Self { reference: [before, clock.count()], stamp, ticks_left }
    }

    /// How long it took, in microseconds: as much the moment may be wrong.
    fn width(&self, clock: Clock) -> u64 {
        clock.micros_between(self.reference[0], self.reference[1])
    }

    /// The one of a few tries that took the shortest time, for who runs the machine may stop it at any moment.
    fn sharpest(clock: Clock, apic: &Apic) -> Self {
        const TRIES: u32 = 5;
        (1..TRIES).fold(Self::of(clock, apic), |best, _| {
            let next = Self::of(clock, apic);
            if next.width(clock) < best.width(clock) { next } else { best }
        })
    }
}

/// Measures the rate of the local APIC's timer, and of the time stamp. Boot CPU, once; the other CPUs' have the same rates.
pub fn calibrate(apic: &Apic) {
    let Some(&clock) = CLOCK.get() else { return };
    apic.set_timer(u32::MAX);
    let first = Reading::sharpest(clock, apic);
    spin_for(CALIBRATION);
    let last = Reading::sharpest(clock, apic);
    apic.set_timer(0);
    // What has passed, not what was to pass.
    let micros = clock.micros_between(first.reference[0], last.reference[0]).max(1);
    let a_millisecond = |counted: u64| counted.saturating_mul(1_000) / micros;
    STAMPS_PER_MS.call_once(|| a_millisecond(last.stamp.wrapping_sub(first.stamp)));
    APIC_TICKS_PER_MS.call_once(|| a_millisecond((first.ticks_left - last.ticks_left).into()));
}

/// Nanoseconds since boot. Any CPU. Reads the machine's one clock, so it is for deadlines, not for hot paths.
#[must_use]
pub fn now() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.nanos(clock.count()))
}

/// The CPU's own time stamp: cheap, of a constant rate, good for differences on one CPU.
#[inline]
#[must_use]
pub fn stamp() -> u64 {
    // SAFETY: reading the time-stamp counter has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Stamps in a millisecond, as far as they are known.
#[must_use]
pub fn stamps_per_ms() -> u64 {
    STAMPS_PER_MS.get().copied().unwrap_or(1)
}

/// Nanoseconds in a difference of two stamps.
#[must_use]
pub fn nanos_of_stamps(stamps: u64) -> u64 {
    const NANOS_PER_MS: u64 = 1_000_000;
    let rate = STAMPS_PER_MS.get().copied().unwrap_or(NANOS_PER_MS).max(1);
    (u128::from(stamps) * u128::from(NANOS_PER_MS) / u128::from(rate)) as u64
}

/// Ticks of the local APIC's timer until `deadline` (nanoseconds of [`now`]): at least one, and no more than
/// the timer can count.
#[must_use]
pub fn ticks_until(deadline: u64) -> u32 {
    const NANOS_PER_MS: u64 = 1_000_000;
    let nanos = deadline.saturating_sub(now());
    let ticks = nanos.saturating_mul(apic_ticks_per_ms().unwrap_or(NANOS_PER_MS)) / NANOS_PER_MS;
    u32::try_from(ticks.max(1)).unwrap_or(u32::MAX)
}

/// Ticks of the local APIC's timer in a millisecond, where a reference clock was there to measure it.
#[must_use]
pub fn apic_ticks_per_ms() -> Option<u64> {
    APIC_TICKS_PER_MS.get().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_management_timer_may_wrap() {
        let clock = Clock::PowerManagement(0, 0xff_ffff);
        assert_eq!(clock.micros_between(0xff_ffff, 3_579_544), 1_000_000);
    }

    #[test]
    fn the_hpet_counts_in_femtoseconds() {
        assert_eq!(Clock::Hpet(0, 10_000_000).micros_between(100, 200), 1);
    }
}
