//! QEMU's events turned into the model's. Callbacks run on the host thread of the vCPU they name.
use crate::api::{self, Functions, Insn, MemInfo, PluginId, Tb};
use crate::output;
use model::block::{Block, Marker, Raw, Site};
use model::cpu::{Access, Cpu};
use model::machine::{Machine, Options};
use std::cell::UnsafeCell;
use std::ffi::{c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};

const LINE: u64 = 64;
const PAGE: u64 = 4096;
/// Longest x86 instruction.
const LONGEST: usize = 15;

/// The machine and its CPUs.
struct State {
    machine: Machine,
    cpus: Box<[Slot]>,
}

/// A CPU, on cache lines of its own.
#[repr(align(128))]
struct Slot(UnsafeCell<Cpu>);

// SAFETY: a slot is only used by `with_cpu`, which QEMU calls on the one host thread that runs that vCPU.
unsafe impl Sync for Slot {}

static STATE: OnceLock<State> = OnceLock::new();
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The machine, once there is one.
pub fn machine() -> Option<&'static Machine> {
    STATE.get().map(|s| &s.machine)
}

/// Builds the machine and registers the callbacks.
pub fn start(id: PluginId, cpus: u32, options: Options) -> Result<(), String> {
    let state = State {
        machine: Machine::new(cpus, options),
        cpus: (0..cpus).map(|i| Slot(UnsafeCell::new(Cpu::new(i)))).collect(),
    };
    STATE.set(state).map_err(|_| "loaded twice".to_string())?;
    let Some(qemu) = api::get() else { return Err("no QEMU".into()) };
    // SAFETY: `id` is the one that QEMU gave to this plugin, and the callbacks live as long as the process.
    unsafe {
        (qemu.on_translation)(id, translate);
        (qemu.on_vcpu_idle)(id, idle);
        (qemu.on_vcpu_resume)(id, resume);
        (qemu.on_exit)(id, exit, std::ptr::null_mut());
    }
    Ok(())
}

/// Runs `work` on the CPU that QEMU names. Called only on that vCPU's thread, never nested.
#[inline]
fn with_cpu(index: c_uint, work: impl FnOnce(&mut Cpu, &Machine)) {
    if STOPPED.load(Relaxed) {
        return;
    }
    let Some(state) = STATE.get() else { return };
    let Some(slot) = state.cpus.get(index as usize) else { return };
    // SAFETY: QEMU runs the callbacks of a vCPU on its own thread, one after another, and none of the
    // model's functions calls back into QEMU; so this is the only reference to the CPU.
    work(unsafe { &mut *slot.0.get() }, &state.machine);
}

extern "C" fn idle(_: PluginId, index: c_uint) {
    with_cpu(index, |cpu, machine| cpu.halt(machine));
}

extern "C" fn resume(_: PluginId, index: c_uint) {
    with_cpu(index, |cpu, machine| cpu.resume(machine));
}

extern "C" fn exit(_: PluginId, _: *mut c_void) {
    if !STOPPED.swap(true, SeqCst)
        && let Some(machine) = machine()
    {
        machine.order.end_strict();
        output::finish(machine);
    }
}

extern "C" fn translate(_: PluginId, tb: *mut Tb) {
    if let (Some(qemu), Some(machine)) = (api::get(), machine()) {
        // SAFETY: QEMU passes a block that is valid during this callback.
        unsafe { instrument(qemu, machine, tb) }
    }
}

/// Registers the callbacks of one block.
///
/// # Safety
/// `tb` is the block under translation.
unsafe fn instrument(qemu: &Functions, machine: &Machine, tb: *mut Tb) {
    // SAFETY: the caller's obligation; indexes are below the length; data and size describe one
    // instruction's bytes, which live until the translation ends.
    let (insns, code) = unsafe {
        let insns: Vec<*mut Insn> = (0..(qemu.block_length)(tb)).map(|i| (qemu.block_insn)(tb, i)).collect();
        let code: Vec<Raw<'_>> = insns
            .iter()
            .map(|&insn| Raw {
                address: (qemu.insn_address)(insn),
                bytes: std::slice::from_raw_parts(
                    (qemu.insn_data)(insn),
                    (qemu.insn_size)(insn).min(LONGEST),
                ),
            })
            .collect();
        (insns, code)
    };
    if code.is_empty() {
        return;
    }
    let options = &machine.options;
    let block = machine.blocks.intern(&code, &options.profile.costs, &options.layout);
    // SAFETY: the handles are valid during translation; blocks, sites and markers are never freed nor
    // written to, so the pointers stay good for as long as translated code can run.
    unsafe {
        (qemu.on_block)(tb, enter_block, api::NO_REGISTERS, pointer(block));
        for ((insn, site), marker) in insns.into_iter().zip(&block.sites).zip(&block.markers) {
            (qemu.on_memory)(insn, memory, api::NO_REGISTERS, api::READ_WRITE, pointer(site));
            if let Some(marker) = marker {
                (qemu.on_insn)(insn, mark, api::NO_REGISTERS, pointer(marker));
            }
        }
    }
}

fn pointer<T>(shared: &'static T) -> *mut c_void {
    std::ptr::from_ref(shared).cast_mut().cast()
}

extern "C" fn enter_block(index: c_uint, block: *mut c_void) {
    // SAFETY: registered with a pointer to a block, which is never freed nor written to.
    let block = unsafe { &*block.cast::<Block>() };
    with_cpu(index, |cpu, machine| {
        if !machine.order.is_on(index) {
            cpu.resume(machine);
        }
        cpu.begin_block(machine, block);
    });
}

extern "C" fn mark(index: c_uint, marker: *mut c_void) {
    // SAFETY: registered with a pointer to a marker, which is never freed nor written to.
    let marker = unsafe { &*marker.cast::<Marker>() };
    with_cpu(index, |cpu, machine| cpu.marker(machine, marker));
}

extern "C" fn memory(index: c_uint, info: MemInfo, address: u64, site: *mut c_void) {
    // SAFETY: registered with a pointer to a site, which is never freed nor written to.
    let site = unsafe { &*site.cast::<Site>() };
    with_cpu(index, |cpu, machine| {
        if !machine.is_armed() {
            return;
        }
        let Some(qemu) = api::get() else { return };
        // SAFETY: `info` is what QEMU passed to this callback.
        let (size, store) = unsafe { (1 << (qemu.access_shift)(info), (qemu.access_is_store)(info)) };
        let Some((physical, is_io)) = locate(qemu, info, address) else { return };
        if is_io {
            return cpu.device_access(machine, site, physical, store);
        }
        let here = (LINE - address % LINE).min(size);
        cpu.access(machine, site, Access { physical, virtual_address: address, size: here, store });
        if here < size {
            let next = address + here;
            let place = if next.is_multiple_of(PAGE) {
                locate(qemu, info, next)
            } else {
                Some((physical + here, false))
            };
            if let Some((physical, false)) = place {
                let rest = Access { physical, virtual_address: next, size: size - here, store };
                cpu.access(machine, site, rest);
            }
        }
    });
}

/// Physical address of `address`, and whether a device answers there.
#[inline]
fn locate(qemu: &Functions, info: MemInfo, address: u64) -> Option<(u64, bool)> {
    // SAFETY: called inside a memory callback with its `info`, for a page that the access touched; the
    // handle is used before the next call.
    unsafe {
        let place = (qemu.hwaddr)(info, address);
        (!place.is_null()).then(|| ((qemu.hwaddr_physical)(place), (qemu.hwaddr_is_io)(place)))
    }
}
