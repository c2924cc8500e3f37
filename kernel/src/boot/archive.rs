//! The boot archive: a plain tar file (POSIX.1-1988, "ustar") with a program a member, `bin/NAME`.
//!
//! Read here and not by a crate, because the headers' checksums are what tells a damaged archive.

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Where a header's own checksum is, which counts as spaces when it is computed.
const CHECKSUM: core::ops::Range<usize> = 148..156;

/// A checked archive.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

impl<'a> Archive<'a> {
    /// Checks the headers of `bytes` and takes them for an archive.
    pub fn new(bytes: &'a [u8]) -> Result<Self, &'static str> {
        check(bytes)?;
        Ok(Self { bytes })
    }

    /// The program `bin/name`.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<&'a [u8]> {
        self.programs().find(|(member, _)| *member == name).map(|(_, bytes)| bytes)
    }

    /// Names and contents of all programs.
    pub fn programs(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        members(self.bytes).filter_map(|(name, data)| Some((name.strip_prefix("bin/")?, data)))
    }
}

/// Name and data of each member of a checked archive.
fn members(bytes: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let header = bytes.get(at..at + BLOCK)?;
        let size = octal(&header[124..136])?;
        let name = header[..100].split(|&b| b == 0).next()?;
        let data = bytes.get(at + BLOCK..at + BLOCK + size)?;
        if name.is_empty() {
            return None;
        }
        at += BLOCK + size.next_multiple_of(BLOCK);
        Some((core::str::from_utf8(name).ok()?, data))
    })
}

fn octal(field: &[u8]) -> Option<usize> {
    let mut digits = field.iter().take_while(|b| b.is_ascii_digit());
    digits.try_fold(0usize, |value, digit| value.checked_mul(8)?.checked_add((digit - b'0').into()))
}

/// Walks the headers: each has the right checksum, each member is whole, and the end mark is there.
fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut at = 0;
    loop {
        let header = bytes.get(at..at + BLOCK).ok_or("it ends before its end mark")?;
        if header.iter().all(|&b| b == 0) {
            return if at == 0 { Err("it is empty") } else { Ok(()) };
        }
        let sum: usize = header
            .iter()
            .enumerate()
            .map(|(i, &b)| usize::from(if CHECKSUM.contains(&i) { b' ' } else { b }))
            .sum();
        let field: &[u8] = &header[CHECKSUM];
        if octal(field.trim_ascii_start()) != Some(sum) {
            return Err("a header's checksum is wrong");
        }
        let size = octal(&header[124..136]).ok_or("a member's size is no number")?;
        let next = at.checked_add(BLOCK).and_then(|n| n.checked_add(size.next_multiple_of(BLOCK)));
        at = next.filter(|&n| n <= bytes.len()).ok_or("a member is cut off")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[CHECKSUM].fill(b' ');
        let sum: usize = block.iter().map(|&b| usize::from(b)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend(data);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn archive() -> Vec<u8> {
        let mut bytes = member("bin/root", b"abc");
        bytes.extend(member("bin/other", &[7; 600]));
        bytes.extend([0; 2 * BLOCK]);
        bytes
    }

    #[test]
    fn programs_are_found_by_name() {
        let bytes = archive();
        let archive = Archive::new(&bytes).unwrap();
        assert_eq!(archive.programs().count(), 2);
        assert_eq!(archive.program("root"), Some(&b"abc"[..]));
        assert_eq!(archive.program("other").map(<[u8]>::len), Some(600));
        assert_eq!(archive.program("oth"), None);
    }

    #[test]
    fn any_damaged_header_byte_is_noticed() {
        let bytes = archive();
        for position in [0, 50, 124, 130, 150, 300, 2 * BLOCK + 3] {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x11;
            assert!(Archive::new(&damaged).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_cut_archive_is_refused_at_every_length() {
        let bytes = archive();
        for length in 0..bytes.len() - 2 * BLOCK {
            assert!(Archive::new(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(Archive::new(&[0; 4096]).is_err());
        assert!(Archive::new(&[0xa5; 4096]).is_err());
        assert!(Archive::new(b"").is_err());
    }
}
