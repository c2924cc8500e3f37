//! Linux as a guest: its kernel from the distribution ([`kernel`]), an initial RAM disk with the twin
//! ([`initramfs`]), its command line and what its end means ([`guest`]), how much is measured of each workload
//! ([`amount`]). Nothing is installed, mounted or
//! needs privileges on the host.
pub mod amount;
pub mod guest;
pub mod initramfs;
pub mod kernel;

pub use guest::Linux;
