//! The workloads of the lab as the only process of a Linux guest.
fn main() {}
