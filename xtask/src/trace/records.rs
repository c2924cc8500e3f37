//! The bytes that a traced kernel hands over, by the layout of `abi::trace`.

use abi::trace::{Event, MAGIC, WORDS};

/// Bytes of a number.
const NUMBER: usize = 8;

/// What happened at one moment on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in the CPU's time stamps.
    pub stamp: u64,
    /// What.
    pub event: Event,
    /// What the event says.
    pub first: u64,
    /// The same.
    pub second: u64,
}

/// One CPU's records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub number: u64,
    /// Records before these, which were replaced.
    pub lost: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Time stamps in a millisecond.
    pub stamps_per_ms: u64,
    /// The CPUs.
    pub cpus: Vec<Cpu>,
}

impl Trace {
    /// Reads a kernel's bytes. Records that were replaced while the kernel handed them over are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or("it does not begin as this version's traces do")?;
        let cpus = number(&mut rest)?;
        let stamps_per_ms = number(&mut rest)?.max(1);
        let cpus = (0..cpus).map(|_| Cpu::parse(&mut rest)).collect::<Result<_, _>>()?;
        if rest.is_empty() { Ok(Self { stamps_per_ms, cpus }) } else { Err("bytes are left over".to_owned()) }
    }

    /// The earliest time stamp.
    pub fn start(&self) -> u64 {
        self.cpus.iter().filter_map(|cpu| cpu.records.first()).map(|record| record.stamp).min().unwrap_or(0)
    }
}

impl Cpu {
    fn parse(rest: &mut &[u8]) -> Result<Self, String> {
        let (own, count, lost) = (number(rest)?, number(rest)?, number(rest)?);
        let mut cpu = Self { number: own, lost, records: Vec::new() };
        for _ in 0..count {
            let mut words = [0; WORDS];
            for word in &mut words {
                *word = number(rest)?;
            }
            let [stamp, event, first, second] = words;
            if words == [0; WORDS] {
                continue;
            }
            let event = Event::from_number(event).ok_or_else(|| format!("there is no event {event}"))?;
            cpu.records.push(Record { stamp, event, first, second });
        }
        Ok(cpu)
    }
}

fn number(rest: &mut &[u8]) -> Result<u64, String> {
    let (bytes, after) = rest.split_first_chunk::<NUMBER>().ok_or("it is cut off")?;
    *rest = after;
    Ok(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What a kernel with these records would write.
    pub fn bytes_of(cpus: &[&[[u64; WORDS]]], lost: u64) -> Vec<u8> {
        let mut numbers = vec![cpus.len() as u64, 1000];
        for (cpu, records) in cpus.iter().enumerate() {
            numbers.extend([cpu as u64, records.len() as u64, lost]);
            numbers.extend(records.iter().flatten());
        }
        MAGIC.into_iter().chain(numbers.into_iter().flat_map(u64::to_le_bytes)).collect()
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let bytes = bytes_of(&[&[[5, 1, 2, 3], [0; 4]], &[]], 9);
        let trace = Trace::parse(&bytes).unwrap();
        let record = Record { stamp: 5, event: Event::CallBegins, first: 2, second: 3 };
        assert_eq!(trace.cpus[0], Cpu { number: 0, lost: 9, records: vec![record] });
        assert_eq!(trace.cpus[1].records, []);
        assert_eq!((trace.start(), trace.stamps_per_ms), (5, 1000));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_the_reason() {
        let good = bytes_of(&[&[[5, 1, 2, 3]]], 0);
        let why = |bytes: &[u8]| Trace::parse(bytes).unwrap_err();
        assert!(why(b"something else").contains("version"));
        assert!(why(&good[..good.len() - 1]).contains("cut off"));
        assert!(why(&[&good[..], &[0]].concat()).contains("left over"));
        assert!(why(&bytes_of(&[&[[5, 99, 2, 3]]], 0)).contains("no event 99"));
    }
}
