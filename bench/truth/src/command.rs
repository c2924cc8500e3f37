//! The command line: `truth=NAME ops=N cpus=N workers=N`.
use crate::boot;

/// Longest name of a test.
const NAME: usize = 24;
/// Most CPUs.
pub const MAX_CPUS: usize = 255;

/// What the command line asks for.
#[derive(Clone, Copy)]
pub struct Command {
    name: [u8; NAME],
    length: usize,
    /// Operations of each worker.
    pub ops: u64,
    /// CPUs of the machine.
    pub cpus: usize,
    /// CPUs that work.
    pub workers: usize,
}

impl Command {
    /// Nothing.
    pub const EMPTY: Self = Self { name: [0; NAME], length: 0, ops: 1000, cpus: 1, workers: 1 };

    /// The test's name.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }
}

/// Reads the command line; `None` if it is unsound.
pub fn read() -> Option<Command> {
    let mut command = Command::EMPTY;
    let mut workers = None;
    for word in boot::command_line().split(|b| *b == b' ').filter(|w| !w.is_empty()) {
        let at = word.iter().position(|b| *b == b'=')?;
        let value = &word[at + 1..];
        match &word[..at] {
            b"truth" => {
                command.name.get_mut(..value.len())?.copy_from_slice(value);
                command.length = value.len();
            }
            b"ops" => command.ops = number(value)?,
            b"cpus" => command.cpus = usize::try_from(number(value)?).ok()?,
            b"workers" => workers = Some(usize::try_from(number(value)?).ok()?),
            _ => return None,
        }
    }
    command.workers = workers.unwrap_or(command.cpus);
    let sound = (1..=MAX_CPUS).contains(&command.cpus) && (1..=command.cpus).contains(&command.workers);
    (sound && command.ops > 0).then_some(command)
}

fn number(digits: &[u8]) -> Option<u64> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}
