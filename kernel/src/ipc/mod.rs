//! Calls between programs, on the caller's CPU.
//!
//! An [`endpoint`] is where a server is called. On each CPU it has a [`replica`]: the server's workers there,
//! of which at most one runs. A [`call`] takes an idle worker and switches to it directly; the reply switches
//! back. A [`notification`] is bits that one thread waits for.

pub mod address;
pub mod afar;
pub mod call;
pub mod end;
pub mod endpoint;
pub mod exception;
pub mod invoke;
pub mod items;
pub mod notification;
pub mod replica;
pub mod reply;
pub mod share;
pub mod tend;
pub mod turn;
