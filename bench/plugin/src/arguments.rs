//! What stands after the plugin's name on QEMU's command line: `key=value`, separated by commas.
use model::machine::Options;
use model::profile::{self, Profile};
use std::path::PathBuf;

/// What the arguments ask for.
#[derive(Debug)]
pub struct Arguments {
    /// The run.
    pub options: Options,
    /// Where the report goes.
    pub out: Option<PathBuf>,
    /// Where progress goes.
    pub progress: Option<PathBuf>,
}

/// Reads the arguments.
///
/// # Errors
/// One line that names the argument and how to mend it.
pub fn parse(texts: &[String]) -> Result<Arguments, String> {
    let mut result = Arguments { options: Options::default(), out: None, progress: None };
    let mut overrides = Vec::new();
    let mut file = None;
    for text in texts {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("argument `{text}` is not of the form key=value"))?;
        let options = &mut result.options;
        match key {
            "out" => result.out = Some(value.into()),
            "progress" => result.progress = Some(value.into()),
            "profile" => file = Some(PathBuf::from(value)),
            "set" => overrides.push(value.to_string()),
            "server" => options.layout.servers.push(range(value)?),
            "fault_entry" => options.layout.fault_entry = Some(number(key, value)?),
            "lines" => options.lines = size(key, value)?,
            "hot" => options.hot = size(key, value)?,
            // The model draws no random numbers; the argument is taken so that callers need not know.
            "seed" => drop(number(key, value)?),
            "arm" => options.arm_on_syscall = arm(value)?,
            _ => return Err(format!("unknown argument `{key}`; known: {KNOWN}")),
        }
    }
    let text = match file {
        Some(path) => std::fs::read_to_string(&path)
            .map_err(|e| format!("cannot read profile {}: {e}", path.display()))?,
        None => profile::DEFAULT.to_string(),
    };
    result.options.profile = Profile::parse(&text, &overrides)?;
    Ok(result)
}

const KNOWN: &str = "out, progress, profile, set, server, fault_entry, lines, hot, seed, arm";

fn arm(value: &str) -> Result<bool, String> {
    match value {
        "start" => Ok(false),
        "syscall" => Ok(true),
        _ => Err(format!("arm={value}: give `start` or `syscall`")),
    }
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| format!("{key}={value}: not a number"))
}

fn size(key: &str, value: &str) -> Result<usize, String> {
    number(key, value)?.try_into().map_err(|_| format!("{key}={value}: too large"))
}

fn range(value: &str) -> Result<(u64, u64), String> {
    let (low, high) =
        value.split_once('-').ok_or_else(|| format!("server={value}: give LOW-HIGH, end exclusive"))?;
    let (low, high) = (number("server", low)?, number("server", high)?);
    if low >= high {
        return Err(format!("server={value}: the range is empty"));
    }
    Ok((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(texts: &[&str]) -> Result<Arguments, String> {
        parse(&texts.iter().map(|t| (*t).to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn all_arguments_are_understood() {
        let got = parse_all(&[
            "out=/tmp/o",
            "progress=/tmp/p",
            "server=0x1000-0x2000",
            "server=1-2",
            "fault_entry=0xff",
            "lines=3",
            "seed=7",
            "set=tenure:5",
            "arm=syscall",
            "hot=9",
        ])
        .unwrap();
        assert_eq!(got.options.layout.servers, [(0x1000, 0x2000), (1, 2)]);
        assert_eq!(got.options.layout.fault_entry, Some(0xff));
        assert_eq!((got.options.lines, got.options.hot, got.options.arm_on_syscall), (3, 9, true));
        assert_eq!(got.options.profile.order.tenure, 5);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (text, word) in [
            ("oot=x", "oot"),
            ("lines", "key=value"),
            ("lines=many", "many"),
            ("server=2-1", "empty"),
            ("server=12", "LOW-HIGH"),
            ("arm=soon", "soon"),
            ("set=locked:-1", "costs.locked"),
            ("profile=/does/not/exist", "/does/not/exist"),
        ] {
            let message = parse_all(&[text]).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
