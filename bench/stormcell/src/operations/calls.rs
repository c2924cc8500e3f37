//! Calls to a server in another address space on the same CPU.

use api::echo::EchoClient;
use api::process::ProcessClient;
use rt::start;
use workloads::table::number;

use super::Checked;
use crate::worker::Operation;

/// A call with one word each way.
pub struct Echo(EchoClient);

impl Operation<{ number::PPC }> for Checked<Echo> {
    fn prepare(_: u32) -> Self {
        let endpoint = ProcessClient(start::block().processes).lookup(b"echo");
        Self::of("the echo server", endpoint.map(|endpoint| Echo(EchoClient(endpoint))))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        const WORD: u64 = 41;
        self.get().is_some_and(|echo| echo.0.next(WORD) == Ok(WORD + 1))
    }
}
