//! Stormcell as a guest: what it boots from, its machine, what its end means ([`guest`]), and what its
//! addresses hold ([`memory`]). Its programs are built by `xtask`, which hands the files over as [`Parts`].
pub mod guest;
pub mod memory;

pub use guest::{NAME, Parts, Program, Stormcell};
