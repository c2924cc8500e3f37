//! What is done with records after they were measured: figures and dashboard ([`report`]), the comparison with the
//! baseline ([`gate`]; [`origin`] says whether a run is of this tree), a new baseline ([`baseline`]), and the history ([`history`]).
pub mod baseline;
pub mod gate;
pub mod history;
mod origin;
pub mod report;
