//! Memory: where everything lies ([`layout`]), physical frames ([`frames`]), the kernel's own mappings
//! ([`kernel_space`]) user mappings ([`address_space`]), programs ([`space`]).

pub mod address_space;
pub mod frames;
pub mod kernel_space;
pub mod layout;
pub mod space;
