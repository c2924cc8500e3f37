//! The least server, and the subject of `docs/server-tutorial.md`: answers a number with the next one.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use api::echo::Echo as _;
use rt::call::Message;
use rt::errno::Errno;
use rt::server::{Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;

/// What all replicas share: nothing.
struct Echo;

rt::server!(Echo, 1);

impl Server for Echo {
    type Replica = ();

    fn new(_: &'static Block) -> Self {
        Self
    }

    fn replica(&self, _: Cpu<'_>) {}

    #[inline(always)]
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        self.dispatch(turn, message.words)
    }
}

impl api::echo::Echo for Echo {
    fn next(&self, _: &Turn<'_, Self>, number: u64) -> Result<u64, Errno> {
        Ok(number.wrapping_add(1))
    }
}
