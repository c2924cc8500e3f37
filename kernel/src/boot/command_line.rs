//! The kernel's command line: words `name=value`, in any order; names that nobody asks for are ignored.

use spin::Once;

/// Longest command line that is kept.
const CAPACITY: usize = 2048;

static TEXT: Once<CommandLine<CAPACITY>> = Once::new();

/// A command line of at most `N` bytes.
#[derive(Debug)]
pub struct CommandLine<const N: usize = CAPACITY> {
    bytes: [u8; N],
    length: usize,
}

/// Keeps a copy of the loader's command line. Boot CPU, once.
pub fn set(bytes: &[u8]) -> Result<(), &'static str> {
    let line = CommandLine::parse(bytes)?;
    TEXT.call_once(|| line);
    Ok(())
}

impl CommandLine {
    /// Longest command line that is kept, in bytes.
    pub const CAPACITY: usize = CAPACITY;

    /// The machine's command line.
    #[must_use]
    pub fn get() -> &'static Self {
        TEXT.call_once(|| Self { bytes: [0; CAPACITY], length: 0 })
    }
}

impl<const N: usize> CommandLine<N> {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > N {
            return Err("the command line is longer than 2048 bytes");
        }
        if core::str::from_utf8(bytes).is_err() {
            return Err("the command line is not UTF-8");
        }
        let mut line = Self { bytes: [0; N], length: bytes.len() };
        line.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(line)
    }

    /// The whole line.
    #[must_use]
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// The value of the last `name=value`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let words = self.text().split_ascii_whitespace().rev();
        words.filter_map(|word| word.split_once('=')).find(|(left, _)| *left == name).map(|(_, right)| right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let line: CommandLine<64> = CommandLine::parse(b"test=a  cpus=3 test=b,c=d tests=e").unwrap();
        assert_eq!(line.value("test"), Some("b,c=d"));
        assert_eq!(line.value("cpus"), Some("3"));
        assert_eq!(line.value("tes"), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_not_cut() {
        assert!(CommandLine::<4>::parse(b"12345").is_err());
        assert!(CommandLine::<4>::parse(&[0xff]).is_err());
    }
}
