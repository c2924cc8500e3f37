//! System calls of the measured operations, each as one `syscall` instruction and nothing around it,
//! and the set-up calls as checked wrappers over `libc`.
//!
//! All `unsafe` of the twin that talks to the kernel is here. Measured wrappers are inlined, so that an
//! operation costs what the kernel costs.
use std::arch::asm;
use std::ffi::CStr;
use std::sync::atomic::AtomicU32;

/// What a failed call of the twin's set-up ends with: the process, after one line that says what failed.
pub fn die(what: &str) -> ! {
    eprintln!("lab: {what}: {}", std::io::Error::last_os_error());
    std::process::exit(1);
}

/// One raw system call with up to four arguments; the result is negative for an error.
///
/// # Safety
/// The caller answers for what the call `number` does with its arguments.
#[inline(always)]
pub unsafe fn raw(number: libc::c_long, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the system-call convention: arguments in rdi, rsi, rdx, r10; rcx and r11 are clobbered, and
    // memory may be written (no `nomem`). What the call does is the caller's obligation.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// `getppid`.
#[inline(always)]
pub fn getppid() -> isize {
    // SAFETY: takes no argument and touches no memory.
    unsafe { raw(libc::SYS_getppid, [0; 4]) }
}

/// `fstat`; true when it succeeded.
#[inline(always)]
pub fn fstat(descriptor: i32, stat: &mut libc::stat) -> bool {
    // SAFETY: `stat` is ours to write and has the layout that the kernel fills.
    unsafe { raw(libc::SYS_fstat, [descriptor as usize, &raw mut *stat as usize, 0, 0]) == 0 }
}

/// `pread64` at offset 0; the number of bytes or a negative error.
#[inline(always)]
pub fn pread(descriptor: i32, buffer: &mut [u8]) -> isize {
    // SAFETY: the kernel writes at most `buffer.len()` bytes at its address, which are ours.
    unsafe { raw(libc::SYS_pread64, [descriptor as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0]) }
}

/// `open` for reading; a descriptor or a negative error.
#[inline(always)]
pub fn open(path: &CStr) -> isize {
    // SAFETY: `path` ends with a zero byte.
    unsafe { raw(libc::SYS_open, [path.as_ptr() as usize, libc::O_RDONLY as usize, 0, 0]) }
}

/// `close` of a descriptor that nobody else uses; zero or a negative error.
#[inline(always)]
pub fn close(descriptor: isize) -> isize {
    // SAFETY: touches no memory; descriptors of the twin are plain numbers without owners.
    unsafe { raw(libc::SYS_close, [descriptor as usize, 0, 0, 0]) }
}

/// Reads or writes (`number`) one byte; true when it moved.
#[inline(always)]
pub fn one_byte(number: libc::c_long, descriptor: i32, byte: &mut u8) -> bool {
    debug_assert!(number == libc::SYS_read || number == libc::SYS_write);
    // SAFETY: one byte that is ours is read or written, as `number` is `read` or `write`.
    unsafe { raw(number, [descriptor as usize, &raw mut *byte as usize, 1, 0]) == 1 }
}

/// `munmap`.
///
/// # Safety
/// Nothing may use the range any more.
#[inline(always)]
pub unsafe fn munmap(address: usize, length: usize) -> bool {
    // SAFETY: the caller's obligation, handed on.
    unsafe { raw(libc::SYS_munmap, [address, length, 0, 0]) == 0 }
}

/// Waits while `word` holds `value`, if it does; may return without cause. The word may be shared between
/// processes.
#[inline(always)]
pub fn futex_wait(word: &AtomicU32, value: u32) {
    // SAFETY: the kernel only reads the word; there is no time-out to read.
    unsafe { raw(libc::SYS_futex, [word.as_ptr() as usize, libc::FUTEX_WAIT as usize, value as usize, 0]) };
}

/// Wakes up to `count` waiters of `word`.
#[inline(always)]
pub fn futex_wake(word: &AtomicU32, count: u32) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe { raw(libc::SYS_futex, [word.as_ptr() as usize, libc::FUTEX_WAKE as usize, count as usize, 0]) };
}

/// Creates a thread that ends at once, on the given stack; `tid` holds its number until it has ended and
/// then 0. Returns the number or a negative error.
///
/// # Safety
/// `stack_top` is the end of a mapped stack that no living thread uses, and `tid` outlives the thread.
#[inline(always)]
pub unsafe fn clone_and_exit(stack_top: usize, tid: &AtomicU32) -> isize {
    const FLAGS: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let result;
    // SAFETY: the child leaves this block by `exit` without touching memory, so that nothing of the parent's
    // is used twice; the stack and the word are the caller's obligation.
    unsafe {
        asm!(
            "syscall",
            "test eax, eax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") FLAGS as usize,
            in("rsi") stack_top,
            in("rdx") tid.as_ptr(),
            in("r10") tid.as_ptr(),
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// `vfork`, then `execve` of `path` in the child; the child's number or a negative error.
#[inline(always)]
pub fn vfork_exec(
    path: &CStr,
    arguments: &[*const libc::c_char; 2],
    environment: &[*const libc::c_char; 1],
) -> isize {
    let result;
    // SAFETY: the child runs inside this block only, writes no memory and leaves it by `execve` or `exit`, so
    // that the parent finds its stack as it was. Path, arguments and environment are zero-terminated (the last
    // pointer of each list is null by construction of the callers) and live until `vfork` returns to the
    // parent, which is after the child's `execve` has read them.
    unsafe {
        asm!(
            "syscall",
            "test eax, eax",
            "jnz 2f",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            execve = const libc::SYS_execve,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_vfork as isize => result,
            in("rdi") path.as_ptr(),
            in("rsi") arguments.as_ptr(),
            in("rdx") environment.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Waits for the child `pid`; true when it ended with status 0.
#[inline(always)]
pub fn wait_success(pid: isize) -> bool {
    let mut status = 0i32;
    // SAFETY: the kernel writes the status, which is ours; no resource usage is asked for.
    let got = unsafe { raw(libc::SYS_wait4, [pid as usize, &raw mut status as usize, 0, 0]) };
    got == pid && status == 0
}

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By `exit` with this status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Waits for the end of the child `pid`.
pub fn wait_for(pid: i32) -> Ended {
    let mut status = 0;
    // SAFETY: `status` is ours to write.
    while unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            die("waitpid");
        }
    }
    if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Status(libc::WEXITSTATUS(status))
    }
}

/// Forks a process that runs `child` and ends; returns its number. The caller has one thread.
pub fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the calling process has one thread (said above), so the child finds no lock held.
    match unsafe { libc::fork() } {
        0 => {
            child();
            std::process::exit(0);
        }
        pid if pid > 0 => pid,
        _ => die("fork"),
    }
}

/// Binds the calling thread to `cpu`.
pub fn pin(cpu: u32) {
    // SAFETY: a CPU set is plain bits, for which all zero is valid; the call reads it only.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if done != 0 {
        die("sched_setaffinity");
    }
}

/// Page faults of the calling thread so far.
pub fn thread_faults() -> u64 {
    // SAFETY: `rusage` is plain numbers, and ours to write.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// Free memory of the machine in bytes.
pub fn free_memory() -> u64 {
    // SAFETY: `sysinfo` is plain numbers, and ours to write.
    let info = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        libc::sysinfo(&mut info);
        info
    };
    info.freeram * u64::from(info.mem_unit)
}

/// Maps `length` bytes anywhere, or exactly at `at`; ends the process when that fails.
pub fn map(at: Option<usize>, length: usize, protection: i32, flags: i32, descriptor: i32) -> usize {
    let fixed = if at.is_some() { libc::MAP_FIXED } else { 0 };
    // SAFETY: an address is given only by callers that replace a part of their own reservation.
    let address =
        unsafe { libc::mmap(at.unwrap_or(0) as *mut _, length, protection, flags | fixed, descriptor, 0) };
    if address == libc::MAP_FAILED { die("mmap") } else { address as usize }
}

/// Takes the pages of a mapping out of the address space; the mapping stays.
pub fn forget(address: usize, length: usize) {
    // SAFETY: callers give mappings of their own, to which no reference exists; what private pages held is
    // lost, and nobody reads it.
    if unsafe { libc::madvise(address as *mut _, length, libc::MADV_DONTNEED) } != 0 {
        die("madvise");
    }
}

/// A timestamp: all earlier instructions have finished, no later one has begun.
#[inline(always)]
pub fn timestamp() -> u64 {
    // SAFETY: RDTSCP and LFENCE are in every x86-64 processor that runs virtual machines.
    unsafe {
        let mut processor = 0;
        let now = std::arch::x86_64::__rdtscp(&mut processor);
        std::arch::x86_64::_mm_lfence();
        now
    }
}

/// Asks for access to one I/O port; true when granted.
pub fn allow_port(port: u16) -> bool {
    // SAFETY: changes what this process may do, no memory.
    unsafe { libc::ioperm(libc::c_ulong::from(port), 1, 1) == 0 }
}

/// Writes `bytes` to a port that [`allow_port`] granted.
pub fn write_port(port: u16, bytes: &[u8]) {
    // SAFETY: reads exactly `bytes`; the device behind the port takes bytes and does nothing else.
    unsafe {
        asm!(
            "rep outsb",
            in("dx") port,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Mounts a file system without a device; true when done.
pub fn mount(kind: &CStr, target: &CStr) -> bool {
    // SAFETY: all strings are zero-terminated; no data is passed.
    unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) == 0 }
}

/// Waits until everything printed has left the console.
pub fn drain_console() {
    // SAFETY: waits on a descriptor, no memory is involved.
    unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
}

/// Switches the machine off. Returns only if the kernel refuses.
pub fn power_off() {
    // SAFETY: no memory is involved; all that matters was written before.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
}

/// Ends what is left of the process group `group`, and collects its processes.
pub fn end_group(group: i32) {
    // SAFETY: signals only processes of a group that an entry made; collecting writes no memory.
    unsafe {
        libc::kill(-group, libc::SIGKILL);
        while libc::waitpid(-1, std::ptr::null_mut(), 0) > 0 {}
    }
}

/// Makes the calling process the leader of a group of its own.
pub fn own_group() {
    // SAFETY: no memory is involved.
    unsafe { libc::setpgid(0, 0) };
}

/// Until [`expect_children`], the death of a child ends this process and all of its group.
pub fn die_with_children() {
    extern "C" fn child_died(_signal: libc::c_int) {
        // SAFETY: both calls are async-signal-safe; the group holds this entry's processes only, because its
        // leader called `own_group` before it had children.
        unsafe {
            libc::kill(0, libc::SIGKILL);
            libc::_exit(1);
        }
    }
    // SAFETY: the handler calls async-signal-safe functions only.
    unsafe { libc::signal(libc::SIGCHLD, child_died as *const () as libc::sighandler_t) };
}

/// The end of children is expected again.
pub fn expect_children() {
    // SAFETY: restores the default, which ignores the signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// CPUs that this process may run on.
pub fn cpus() -> u32 {
    // SAFETY: a CPU set is plain bits, for which all zero is valid; it is ours to write.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        libc::CPU_COUNT(&set) as u32
    }
}
