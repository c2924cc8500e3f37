//! What root answers about its servers: [`api::supervisor`].

use abi::Handle;
use api::badge;
use api::supervisor::{ServerState, Supervisor};
use rt::call::{self, Message};
use rt::errno::Errno;
use rt::server::{Place, Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;

use crate::supervise;

struct Reception;

static RECEPTION: Place<Reception, 1> = Place::new();

extern "C" fn entry() -> ! {
    rt::server::work(&RECEPTION)
}

/// Makes the endpoint, and begins.
///
/// # Safety
/// The stacks are there, for all CPUs, and nobody's.
pub unsafe fn endpoint(stacks: u64, stack: u64, workers: u32) -> Result<Handle, abi::Error> {
    // SAFETY: the caller's.
    let endpoint =
        unsafe { call::create_endpoint(Handle(0), entry as *const () as u64, stacks, stack, workers) }?;
    call::call(endpoint, [rt::service::BEGIN, 0, 0, 0])?;
    Ok(endpoint)
}

impl Server for Reception {
    type Replica = ();

    fn new(_: &'static Block) -> Self {
        Self
    }

    fn replica(&self, _: Cpu<'_>) {}

    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        self.dispatch(turn, message.words)
    }
}

impl Supervisor for Reception {
    fn server(&self, _: &Turn<'_, Self>, index: u64) -> Result<ServerState, Errno> {
        supervise::state_of(index as usize).ok_or(Errno::NoEntry)
    }

    fn end(&self, _: &Turn<'_, Self>, index: u64) -> Result<(), Errno> {
        supervise::end(index as usize)
    }

    fn endpoint(&self, turn: &Turn<'_, Self>, index: u64) -> Result<Handle, Errno> {
        if turn.badge != badge::PROCESS {
            return Err(Errno::NotPermitted);
        }
        supervise::give_endpoint(index as usize)
    }
}
