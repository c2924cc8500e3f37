//! What is done with records after they were measured: the history ([`history`]), figures and dashboard ([`report`]).
pub mod history;
pub mod report;
