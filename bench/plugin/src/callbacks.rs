//! QEMU's events turned into the model's. Callbacks run on the host thread of the vCPU they name.
use crate::api::{self, Functions, Insn, MemInfo, PluginId, Tb};
use crate::output;
use crate::pages::{PAGE_BITS, Pages};
use model::block::{Block, Marker, Raw, Site};
use model::cpu::{Access, Cpu};
use model::machine::{Machine, Options};
use std::cell::UnsafeCell;
use std::ffi::{c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicPtr, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};

const LINE: u64 = 64;
const PAGE: u64 = 1 << PAGE_BITS;
/// A site's memo: the access as QEMU described it, its size, whether it stores, and that there is a memo.
const MEMO_SIZE: u32 = 32;
const MEMO_STORE: u64 = 1 << 48;
const MEMO: u64 = 1 << 63;
/// Longest x86 instruction.
const LONGEST: usize = 15;

/// The machine and its CPUs.
struct State {
    machine: Machine,
    cpus: Box<[Slot]>,
}

/// A CPU, on cache lines of its own.
#[repr(align(128))]
struct Slot(UnsafeCell<Vcpu>);

/// What belongs to one vCPU.
struct Vcpu {
    cpu: Cpu,
    pages: Pages,
    /// The block that runs can make the processor forget translations.
    flush: bool,
}

// SAFETY: a slot is only used by `with_cpu`, which QEMU calls on the one host thread that runs that vCPU.
unsafe impl Sync for Slot {}

static STATE: OnceLock<State> = OnceLock::new();
/// The same while the guest runs: null before and after, so that each callback has one thing to look at.
static RUNNING: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

/// The machine, once there is one.
pub fn machine() -> Option<&'static Machine> {
    STATE.get().map(|s| &s.machine)
}

/// Builds the machine and registers the callbacks.
pub fn start(id: PluginId, cpus: u32, options: Options) -> Result<(), String> {
    let state = State {
        machine: Machine::new(cpus, options),
        cpus: (0..cpus)
            .map(|i| Slot(UnsafeCell::new(Vcpu { cpu: Cpu::new(i), pages: Pages::new(), flush: false })))
            .collect(),
    };
    STATE.set(state).map_err(|_| "loaded twice".to_string())?;
    let state = STATE.get().ok_or("no state")?;
    RUNNING.store(std::ptr::from_ref(state).cast_mut(), Release);
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
fn with_cpu(index: c_uint, work: impl FnOnce(&mut Vcpu, &Machine)) {
    // SAFETY: null, or the state in `STATE`, which is never taken out of it nor borrowed mutably.
    let Some(state) = (unsafe { RUNNING.load(Acquire).as_ref() }) else { return };
    let Some(slot) = state.cpus.get(index as usize) else { return };
    // SAFETY: QEMU runs the callbacks of a vCPU on its own thread, one after another, and none of the
    // model's functions calls back into QEMU; so this is the only reference to the CPU.
    work(unsafe { &mut *slot.0.get() }, &state.machine);
}

extern "C" fn idle(_: PluginId, index: c_uint) {
    with_cpu(index, |vcpu, machine| vcpu.cpu.halt(machine));
}

extern "C" fn resume(_: PluginId, index: c_uint) {
    with_cpu(index, |vcpu, machine| vcpu.cpu.resume(machine));
}

extern "C" fn exit(_: PluginId, _: *mut c_void) {
    if !RUNNING.swap(std::ptr::null_mut(), SeqCst).is_null()
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
    with_cpu(index, |vcpu, machine| {
        if !machine.order.is_on(index) {
            vcpu.cpu.resume(machine);
        }
        if vcpu.flush {
            vcpu.pages.flush();
        }
        vcpu.flush = block.flushes;
        vcpu.cpu.begin_block(machine, block);
    });
}

extern "C" fn mark(index: c_uint, marker: *mut c_void) {
    // SAFETY: registered with a pointer to a marker, which is never freed nor written to.
    let marker = unsafe { &*marker.cast::<Marker>() };
    with_cpu(index, |vcpu, machine| vcpu.cpu.marker(machine, marker));
}

extern "C" fn memory(index: c_uint, info: MemInfo, address: u64, site: *mut c_void) {
    // SAFETY: registered with a pointer to a site, which is never freed, and written to only atomically.
    let site = unsafe { &*site.cast::<Site>() };
    with_cpu(index, |vcpu, machine| {
        if !machine.is_armed() || site.string && vcpu.cpu.string_again(info, address) {
            return;
        }
        let Some(qemu) = api::get() else { return };
        let (size, store) = describe(qemu, info, site);
        let Some(physical) = vcpu.locate(qemu, info, address) else {
            return vcpu.device_access(qemu, machine, info, address, site);
        };
        let here = (LINE - address % LINE).min(size);
        let access = Access { physical, virtual_address: address, size: here, store };
        vcpu.cpu.access(machine, site, access);
        if here < size {
            let next = address + here;
            let place =
                if next.is_multiple_of(PAGE) { vcpu.locate(qemu, info, next) } else { Some(physical + here) };
            if let Some(physical) = place {
                let rest = Access { physical, virtual_address: next, size: size - here, store };
                vcpu.cpu.access(machine, site, rest);
            }
        }
    });
}

/// Size of an access, and whether it stores. QEMU describes most accesses of an instruction alike, so the
/// last answer is kept with it.
#[inline]
fn describe(qemu: &Functions, info: MemInfo, site: &Site) -> (u64, bool) {
    let memo = site.memo.load(Relaxed);
    if memo & MEMO != 0 && memo as u32 == info {
        return (memo >> MEMO_SIZE & 0xff, memo & MEMO_STORE != 0);
    }
    // SAFETY: `info` is what QEMU passed to the callback.
    let (size, store) = unsafe { (1u64 << (qemu.access_shift)(info), (qemu.access_is_store)(info)) };
    let stores = if store { MEMO_STORE } else { 0 };
    site.memo.store(MEMO | stores | size << MEMO_SIZE | u64::from(info), Relaxed);
    (size, store)
}

impl Vcpu {
    /// Physical address of `address`, unless a device answers there.
    #[inline]
    fn locate(&mut self, qemu: &Functions, info: MemInfo, address: u64) -> Option<u64> {
        if let Some(physical) = self.pages.find(address) {
            return Some(physical);
        }
        // SAFETY: called inside a memory callback with its `info`, for a page that the access touched; the
        // handle is used before the next call.
        unsafe {
            let place = (qemu.hwaddr)(info, address);
            if place.is_null() || (qemu.hwaddr_is_io)(place) {
                return None;
            }
            let physical = (qemu.hwaddr_physical)(place);
            self.pages.keep(address, physical);
            Some(physical)
        }
    }

    /// An access that a device answers.
    #[cold]
    fn device_access(
        &mut self,
        qemu: &Functions,
        machine: &Machine,
        info: MemInfo,
        address: u64,
        site: &Site,
    ) {
        // SAFETY: as in `locate`.
        unsafe {
            let place = (qemu.hwaddr)(info, address);
            if !place.is_null() && (qemu.hwaddr_is_io)(place) {
                let physical = (qemu.hwaddr_physical)(place);
                self.cpu.device_access(machine, site, physical, (qemu.access_is_store)(info));
            }
        }
    }
}
