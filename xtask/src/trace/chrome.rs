//! The trace event format of Chrome and Perfetto: a track a CPU; what lasts is a slice, what does not is an instant.

use abi::Call;
use abi::trace::Event;
use serde_json::{Value, json};

use super::records::{Cpu, Record, Trace};

/// The only process: the machine.
const MACHINE: u64 = 0;

/// The whole file.
pub fn document(trace: &Trace) -> Value {
    let mut events = vec![json!({
        "ph": "M", "name": "process_name", "pid": MACHINE, "args": {"name": "Stormcell"}
    })];
    for cpu in &trace.cpus {
        let name = format!("CPU {}", cpu.number);
        events.push(json!({
            "ph": "M", "name": "thread_name", "pid": MACHINE, "tid": cpu.number, "args": {"name": name}
        }));
        let mut track = Track { trace, cpu, events: &mut events, since: None };
        cpu.records.iter().for_each(|record| track.add(record));
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}

/// One CPU's track while it is written.
struct Track<'a> {
    trace: &'a Trace,
    cpu: &'a Cpu,
    events: &'a mut Vec<Value>,
    /// What the CPU does since when, with what is known about it.
    since: Option<(u64, String, Value)>,
}

impl Track<'_> {
    fn add(&mut self, record: &Record) {
        let &Record { stamp, event, first, second } = record;
        match event {
            Event::CallBegins => self.turn(stamp, call_name(first), json!({"thread": id(second)})),
            Event::Leaves => self.turn(stamp, program_name(second), json!({"thread": id(first)})),
            Event::Idle => self.turn(stamp, "idle".to_owned(), json!({})),
            Event::Awake => self.turn(stamp, "kernel".to_owned(), json!({"vector": first})),
            Event::Fault => {
                let args = json!({"vector": first, "address": id(second)});
                self.instant(stamp, "fault", &args);
                self.turn(stamp, format!("exception {first}"), args);
            }
            Event::ShootdownBegins => {
                self.turn(stamp, "shootdown".to_owned(), json!({"cpus": first, "pages": second}));
            }
            Event::ShootdownEnds => self.turn(stamp, "kernel".to_owned(), json!({})),
            Event::Switch | Event::Calls | Event::Replies => {
                let name = match event {
                    Event::Switch => "switch",
                    Event::Calls => "call",
                    _ => "reply",
                };
                self.instant(stamp, name, &json!({"from": id(first), "to": id(second)}));
            }
            Event::IpiSent => self.instant(stamp, "IPI to", &json!({"cpu": first})),
            Event::IpiCame => self.instant(stamp, "IPI", &json!({})),
            Event::GraceEnds => self.instant(stamp, "grace period", &json!({"number": first})),
        }
    }

    /// The CPU does something else from now on: what it did is a slice.
    fn turn(&mut self, stamp: u64, name: String, args: Value) {
        if let Some((start, name, args)) = self.since.replace((stamp, name, args)) {
            let duration = self.micros(stamp.saturating_sub(start));
            let event = json!({
                "ph": "X", "name": name, "pid": MACHINE, "tid": self.cpu.number, "ts": self.time(start),
                "dur": duration, "args": args
            });
            self.events.push(event);
        }
    }

    fn instant(&mut self, stamp: u64, name: &str, args: &Value) {
        let event = json!({
            "ph": "i", "s": "t", "name": name, "pid": MACHINE, "tid": self.cpu.number, "ts": self.time(stamp),
            "args": args
        });
        self.events.push(event);
    }

    fn time(&self, stamp: u64) -> f64 {
        self.micros(stamp.saturating_sub(self.trace.start()))
    }

    fn micros(&self, stamps: u64) -> f64 {
        const MICROS_PER_MS: f64 = 1000.0;
        stamps as f64 * MICROS_PER_MS / self.trace.stamps_per_ms as f64
    }
}

fn call_name(number: u64) -> String {
    let call = usize::try_from(number).ok().and_then(|number| Call::ALL.get(number));
    call.map_or_else(|| format!("call {number}"), |call| call.signature().0.to_owned())
}

fn program_name(first_bytes: u64) -> String {
    let bytes = first_bytes.to_le_bytes();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Addresses are more than a number of JSON can hold exactly.
fn id(address: u64) -> String {
    format!("{address:#x}")
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::bytes_of;
    use super::*;

    #[test]
    fn a_call_becomes_slices_of_kernel_and_programs_and_an_instant() {
        let echo = u64::from_le_bytes(*b"echo\0\0\0\0");
        let number = |event: Event| event as u64;
        let records: &[[u64; 4]] = &[
            [1000, number(Event::CallBegins), Call::Call as u64, 0xa],
            [1500, number(Event::Calls), 0xa, 0xb],
            [2000, number(Event::Leaves), 0xb, echo],
            [5000, number(Event::CallBegins), Call::ReplyWait as u64, 0xb],
        ];
        let trace = Trace::parse(&bytes_of(&[records], 0)).unwrap();
        let document = document(&trace);
        let events = document["traceEvents"].as_array().unwrap();
        let named = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
        let kernel = named("Call");
        assert_eq!(
            (&kernel["ph"], &kernel["ts"], &kernel["dur"]),
            (&json!("X"), &json!(0.0), &json!(1000.0))
        );
        let user = named("echo");
        assert_eq!((&user["ts"], &user["dur"]), (&json!(1000.0), &json!(3000.0)));
        assert_eq!(user["args"]["thread"], "0xb");
        let call = named("call");
        assert_eq!(
            (&call["ph"], &call["ts"], &call["args"]["to"]),
            (&json!("i"), &json!(500.0), &json!("0xb"))
        );
        assert_eq!(named("thread_name")["args"]["name"], "CPU 0");
    }

    #[test]
    fn what_has_no_name_is_numbered() {
        assert_eq!(call_name(10_000), "call 10000");
        assert_eq!(program_name(u64::from_le_bytes(*b"12345678")), "12345678");
    }
}
