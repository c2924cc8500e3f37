//! A byte there and back between two processes of one CPU.

use abi::{Handle, PAGE, Rights};
use api::memory::MemoryClient;
use api::process::ProcessClient;
use rt::call;
use rt::pipe::{Bells, Pipe, Reader, Which, Writer};
use rt::service::Failure;
use rt::start;
use workloads::table::number;

use super::Checked;
use crate::worker::Operation;

/// The program at the other end.
const PROGRAM: &[u8] = b"partner";
/// Where the pipes are mapped.
const PLACE: u64 = 0x2900_0000_0000;

/// The worker's ends of two pipes.
pub struct RoundTrip {
    /// `None` only while it is dropped.
    ends: Option<(Writer, Reader)>,
    byte: u8,
    partner: u64,
    processes: ProcessClient,
}

impl RoundTrip {
    fn new(cpu: u32) -> Result<Self, Failure> {
        let block = start::block();
        let (memory, processes) = (MemoryClient(block.memory), ProcessClient(block.processes));
        let object = memory.create(0, 2)?;
        memory.share(object)?;
        memory.map(object, PLACE, 2 * PAGE)?;
        // SAFETY: just mapped, for good; the partner is the other end of both.
        let (there, back) = unsafe { (Pipe::new(PLACE), Pipe::new(PLACE + PAGE)) };
        let partner = processes.spawn(PROGRAM, cpu.into(), object)?;
        let bells = give_bells(there, back, processes.space_of(partner)?).map_err(Failure::Kernel)?;
        there.equip(Which::Writer, bells);
        back.equip(Which::Reader, bells);
        Ok(Self { ends: Some((there.writer(), back.reader())), byte: 0, partner, processes })
    }
}

/// Makes a bell for each side, and equips the partner's ends with its; returns the worker's.
fn give_bells(there: Pipe, back: Pipe, space: Handle) -> Result<Bells, abi::Error> {
    let (own, other) = (call::create_notification()?, call::create_notification()?);
    let theirs = Bells {
        own: call::grant(other, space, Rights::RECEIVE)?,
        other: call::grant(own, space, Rights::USE)?,
    };
    there.equip(Which::Reader, theirs);
    back.equip(Which::Writer, theirs);
    Ok(Bells { own, other })
}

impl Operation<{ number::PIPE }> for Checked<RoundTrip> {
    fn prepare(cpu: u32) -> Self {
        Self::of("partner", RoundTrip::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Some(RoundTrip { ends: Some((there, back)), byte, .. }) = self.get() else { return false };
        *byte = byte.wrapping_add(1);
        let mut answer = [0];
        there.write(&[*byte]) == Ok(1) && back.read(&mut answer) == Ok(1) && answer == [*byte]
    }
}

impl Drop for RoundTrip {
    fn drop(&mut self) {
        self.ends = None;
        if self.processes.wait(self.partner) != Ok(0) {
            rt::log!("the partner at the other end of the pipe did not end well");
        }
    }
}
