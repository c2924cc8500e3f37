//! The Stormcell microkernel.
#![no_std]
