//! Truth tests of the instrument: a stand-alone guest (`bench/truth`) runs loops whose costs follow from the
//! contract's table, and what the instrument reports must be that. [`CASES`] is the list; [`runner`] boots,
//! [`costs`], [`sharing`] and [`host`] judge.
pub mod costs;
pub mod host;
pub mod runner;
pub mod sharing;

use anyhow::Result;
pub use runner::Runner;

/// A truth test.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: what holds.
    pub name: &'static str,
    /// Boots guests and judges; a note on success, an error that names both figures otherwise.
    pub check: fn(&Runner) -> Result<String>,
}

/// All truth tests.
pub const CASES: &[Case] = &[
    Case { name: "each-fixed-cost", check: costs::fixed },
    Case { name: "an-instruction-costs-one-cycle", check: costs::instructions },
    Case { name: "cost-across-sockets", check: costs::across_sockets },
    Case { name: "ipi-wakes-after-its-delivery", check: costs::ipi_delivery },
    Case { name: "private-counter-stays-flat", check: sharing::private_counter },
    Case { name: "shared-counter-costs-100-a-cpu", check: sharing::shared_counter },
    Case { name: "passing-a-line-moves-it-twice-a-round-trip", check: sharing::alternate },
    Case { name: "waiting-for-a-line-reads-and-writes-it", check: sharing::handoff },
    Case { name: "reading-moves-nothing", check: sharing::read_only },
    Case { name: "false-sharing-is-seen", check: sharing::false_sharing },
    Case { name: "ticket-lock-grows-mcs-lock-does-not", check: sharing::locks },
    Case { name: "tenure-lets-a-compare-exchange-finish", check: sharing::tenure },
    Case { name: "a-halted-cpu-changes-nothing", check: sharing::halted },
    Case { name: "five-runs-agree-beside-a-busy-process", check: sharing::repeatable },
    Case { name: "a-guest-that-turns-in-circles-is-found", check: host::hung },
    Case { name: "255-cpus-and-8-gib-take-little-of-the-host", check: host::memory },
];
