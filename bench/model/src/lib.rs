//! A parallel machine simulator: modelled clocks, a line directory, lax synchronisation, statistics.
pub mod report;
