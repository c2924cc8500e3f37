//! Memory: where everything lies ([`layout`]), the kernel's own mappings ([`kernel_space`]), and what programs have.
//!
//! - [`frames`]: free physical memory, and each CPU's list of it; [`frame`]: the line that the kernel keeps for
//!   each frame.
//! - [`space`]: a program, and [`watch`]: its end and new beginning; [`page_map`]: what it maps, a line a page; [`local`]:
//!   what each CPU has of it, its page tables ([`tables`]) above all, caches of the former; [`region`]: which pager is
//!   asked about which addresses.
//! - [`mapping`]: memory capabilities, mapping and unmapping; [`large`]: large pages; [`revoke`]: taking memory back;
//!   [`shootdown`]: what unmapping asks of other CPUs; [`fault`]: page faults; [`account`]: who pays for the kernel's
//!   part of it, and [`bill`]: for what grows while others may end it.
//!
//! # What touches what
//!
//! A page fault in steady state reads the space's page map and regions, which nobody writes, and writes lines of
//! its own: the page's line, the frame's line, an entry of this CPU's own page table. So faults of different CPUs
//! on different pages move no line and take no lock that another CPU could hold, be it in one program or in many.
//! Unmapping finds in the page's line exactly the CPUs that used it.

pub mod account;
pub mod bill;
pub mod fault;
pub mod frame;
pub mod frames;
pub mod kernel_space;
pub mod large;
pub mod layout;
pub mod local;
pub mod mapping;
pub mod page_map;
pub mod region;
pub mod revoke;
pub mod shootdown;
pub mod space;
pub mod tables;
pub mod user;
pub mod watch;
