//! A profile: what each event of the machine costs, and how strictly the CPUs are ordered. Read from
//! TOML; every key is required, unknown keys and negative values are errors that name the key.
use serde::{Deserialize, Serialize};

/// Modelled cycles of a profile that stand for themselves.
type Cycles = u32;

/// The default profile's text, so that the instrument works without a file.
pub const DEFAULT: &str = include_str!("../../profiles/server-1s.toml");

/// A whole profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, as it appears in records.
    pub name: String,
    /// The machine as such.
    pub machine: MachineShape,
    /// Costs of events.
    pub costs: Costs,
    /// Parameters of the synchronisation between CPUs.
    pub order: Order,
}

/// The machine as such.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineShape {
    /// Number of sockets; CPU numbers are split into equal, contiguous groups.
    pub sockets: u32,
    /// Cycles in a microsecond of the guest's virtual time.
    pub megahertz: u32,
}

/// Costs of events, in modelled cycles. The contract's table explains each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is explained beside its figure in bench/profiles")]
pub struct Costs {
    pub instruction: Cycles,
    pub transfer: Cycles,
    pub transfer_remote: Cycles,
    pub first_touch: Cycles,
    pub string_line: Cycles,
    pub locked: Cycles,
    pub pause: Cycles,
    pub ipi_send: Cycles,
    pub ipi_delivery: Cycles,
    pub syscall: Cycles,
    pub sysret: Cycles,
    pub entry: Cycles,
    pub iretq: Cycles,
    pub write_cr3: Cycles,
    pub write_cr0: Cycles,
    pub invlpg: Cycles,
    pub swapgs: Cycles,
    pub wrmsr: Cycles,
    pub apic: Cycles,
    pub rdmsr: Cycles,
    pub xsave: Cycles,
}

/// Parameters of the synchronisation between CPUs, in modelled cycles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// How far a CPU may run ahead of the slowest.
    pub quantum: Cycles,
    /// The same where it uses contended lines, and where it spins.
    pub window: Cycles,
    /// How long the winner of a line runs on before others' requests are ordered.
    pub tenure: Cycles,
    /// A line that moves twice within this time is contended.
    pub hot_interval: Cycles,
    /// How long a block of code that used a contended line is held to `window`.
    pub hot_period: Cycles,
    /// How far the others must be ahead before a spinning CPU runs again.
    pub spin_batch: Cycles,
}

impl Default for Profile {
    fn default() -> Self {
        Self::parse(DEFAULT, &[]).expect("the default profile is tested to be sound")
    }
}

impl Profile {
    /// Reads a profile and applies `overrides` of the form `key:value`.
    ///
    /// # Errors
    /// One line that names the key or the place in the text and what is wrong with it.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, String> {
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| one_line(&e))?;
        for item in overrides {
            set(&mut table, item)?;
        }
        check_signs(&table)?;
        let profile: Self = table.try_into().map_err(|e: toml::de::Error| one_line(&e))?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), String> {
        if self.machine.sockets == 0 {
            return Err("profile: machine.sockets must be at least 1".into());
        }
        if self.machine.megahertz == 0 {
            return Err("profile: machine.megahertz must be at least 1".into());
        }
        if self.costs.instruction == 0 {
            return Err("profile: costs.instruction must be at least 1, or clocks do not move".into());
        }
        if self.order.quantum == 0 {
            return Err("profile: order.quantum must be at least 1".into());
        }
        if self.name.is_empty() || self.name.contains('@') {
            return Err("profile: name must be a word without `@`".into());
        }
        Ok(())
    }

    /// Name and hash of all figures, `name@hash`: two records with the same text are comparable.
    #[must_use]
    pub fn identity(&self) -> String {
        let text = toml::to_string(self).unwrap_or_default();
        let hash = text.bytes().fold(FNV_BASIS, |h, b| (h ^ u64::from(b)).wrapping_mul(FNV_PRIME));
        format!("{}@{:08x}", self.name, (hash >> 32) ^ (hash & 0xffff_ffff))
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

fn one_line(error: &toml::de::Error) -> String {
    format!("profile: {}", error.to_string().trim().replace('\n', " "))
}

/// Applies one `key:value` to whichever section has the key.
fn set(table: &mut toml::Table, item: &str) -> Result<(), String> {
    let bad = || format!("profile: override `{item}` is not of the form key:integer");
    let (key, value) = item.split_once(':').ok_or_else(bad)?;
    let value: i64 = value.parse().map_err(|_| bad())?;
    let (section, name) = key.split_once('.').map_or((None, key), |(section, name)| (Some(section), name));
    let sections =
        table.iter_mut().filter(|(title, _)| section.is_none_or(|wanted| wanted == title.as_str()));
    for content in sections.filter_map(|(_, value)| value.as_table_mut()) {
        if let Some(slot) = content.get_mut(name) {
            *slot = toml::Value::Integer(value);
            return Ok(());
        }
    }
    Err(format!("profile: override `{item}`: no key `{key}`"))
}

/// Finds negative values first, because the general error would not name the key.
fn check_signs(table: &toml::Table) -> Result<(), String> {
    for (section, value) in table {
        for (key, value) in value.as_table().into_iter().flatten() {
            if value.as_integer().is_some_and(|v| v < 0) {
                return Err(format!("profile: {section}.{key} is {value}: it must not be negative"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_SOCKETS: &str = include_str!("../../profiles/server-2s.toml");

    #[test]
    fn default_profile_has_the_figures_of_the_contract() {
        let c = Profile::default().costs;
        let got = [
            c.instruction,
            c.transfer,
            c.transfer_remote,
            c.first_touch,
            c.string_line,
            c.locked,
            c.pause,
            c.ipi_send,
            c.ipi_delivery,
            c.syscall,
            c.sysret,
            c.entry,
            c.iretq,
            c.write_cr3,
            c.write_cr0,
            c.invlpg,
            c.swapgs,
            c.wrmsr,
            c.apic,
            c.rdmsr,
            c.xsave,
        ];
        let want =
            [1, 100, 220, 20, 20, 18, 40, 200, 1000, 75, 75, 600, 300, 200, 100, 120, 25, 100, 100, 40, 60];
        assert_eq!(got, want);
        assert_eq!(Profile::default().order.tenure, 10);
    }

    #[test]
    fn every_figure_states_its_origin() {
        for text in [DEFAULT, TWO_SOCKETS] {
            for line in text.lines().filter(|l| l.contains('=') && !l.starts_with('#')) {
                assert!(line.starts_with("name") || line.contains("# "), "no origin: {line}");
            }
        }
    }

    #[test]
    fn two_socket_profile_parses() {
        assert_eq!(Profile::parse(TWO_SOCKETS, &[]).map(|p| p.machine.sockets), Ok(2));
    }

    #[test]
    fn unknown_missing_and_negative_keys_are_named() {
        let unknown = DEFAULT.replace("locked = 18", "lokced = 18");
        assert!(Profile::parse(&unknown, &[]).unwrap_err().contains("lokced"));
        let missing = DEFAULT.replace("locked = 18", "");
        assert!(Profile::parse(&missing, &[]).unwrap_err().contains("locked"));
        let negative = DEFAULT.replace("locked = 18", "locked = -18");
        assert!(Profile::parse(&negative, &[]).unwrap_err().contains("costs.locked is -18"));
    }

    #[test]
    fn overrides_change_the_figure_and_the_identity() {
        let changed = Profile::parse(DEFAULT, &["tenure:30".into()]).unwrap();
        assert_eq!(changed.order.tenure, 30);
        assert_eq!(Profile::parse(DEFAULT, &["order.tenure:30".into()]).unwrap(), changed);
        assert!(Profile::parse(DEFAULT, &["costs.tenure:30".into()]).unwrap_err().contains("costs.tenure"));
        assert_ne!(changed.identity(), Profile::default().identity());
        assert!(Profile::parse(DEFAULT, &["tenur:30".into()]).unwrap_err().contains("tenur"));
        assert!(Profile::parse(DEFAULT, &["tenure".into()]).unwrap_err().contains("key:integer"));
    }
}
