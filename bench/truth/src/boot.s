// From QEMU's PVH entry (32-bit, paging off) and from the start-up IPI (16-bit) to 64-bit Rust code in the
// last 2 GiB. The first GiB of memory is mapped there and, for user mode too, where it is; so is the page
// of the local APIC.
.set BASE, 0xffffffff80000000
.set TRAMPOLINE, 0x8000
.set TRAMPOLINE_SIZE, 256
.set CR4_BITS, 0x50620              // PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE
.set CR0_BITS, 0x80000033           // PG, NE, ET, MP, PE
.set EFER, 0xc0000080
.set EFER_BITS, 0x101               // LME, SCE
.set STACK_SIZE, 0x4000

.section .note.pvh, "a"
.align 4
.long 4, 4, 18
.asciz "Xen"
.long pvh_start

.section .boot, "awx"
.code32
.global pvh_start
pvh_start:
    cli
    mov [boot_info], ebx
    mov dword ptr [pml4], offset pdpt_low + 7
    mov dword ptr [pml4 + 511 * 8], offset pdpt_high + 3
    mov dword ptr [pdpt_low], offset pd_memory + 7
    mov dword ptr [pdpt_low + 3 * 8], offset pd_apic + 7
    mov dword ptr [pdpt_high + 510 * 8], offset pd_memory + 3
    mov dword ptr [pd_apic + 0x1f7 * 8], 0xfee0009b
    mov eax, 0x87
    mov edi, offset pd_memory
2:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    cmp edi, offset pd_memory + 4096
    jne 2b
    // The trampoline runs below 1 MiB.
    mov esi, offset trampoline
    mov edi, TRAMPOLINE
    mov ecx, TRAMPOLINE_SIZE
    rep movsb
    lgdt [gdt_pointer]

.macro long_mode, target
    mov eax, CR4_BITS
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, EFER
    mov eax, EFER_BITS
    xor edx, edx
    wrmsr
    mov eax, CR0_BITS
    mov cr0, eax
    .byte 0xea
    .long \target
    .word 0x18
.endm
    long_mode start64

.code64
start64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 7                      // x87, SSE and AVX state are the guest's to save
    xor edx, edx
    xor ecx, ecx
    xsetbv
    mov edi, 1
    lock xadd [cpus_arrived], edi   // edi: number of this CPU
    mov eax, edi
    inc eax
    imul eax, eax, STACK_SIZE
    movabs rsp, offset stacks
    add rsp, rax
    movabs rax, offset rust_start
    xor ebp, ebp
    call rax

.code16
trampoline:
    cli
    jmp 2f
.balign 8
    .word gdt_end - gdt - 1         // at TRAMPOLINE + 8
    .long gdt
2:  xor ax, ax
    mov ds, ax
    lgdt [TRAMPOLINE + 8]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long TRAMPOLINE + trampoline32 - trampoline
    .word 8
.code32
trampoline32:
    mov ax, 0x10
    mov ds, ax
    long_mode start64

.align 16
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff        // 08 kernel, 32-bit
    .quad 0x00cf92000000ffff        // 10 data
    .quad 0x00af9a000000ffff        // 18 kernel, 64-bit
    .quad 0x00cf92000000ffff        // 20 kernel data, as syscall wants it
    .quad 0                         // 28 base for sysret
    .quad 0x00cff2000000ffff        // 30 user data
    .quad 0x00affa000000ffff        // 38 user, 64-bit
    .global tss_descriptor
tss_descriptor:
    .quad 0, 0                      // 40 task state
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

.global boot_info
boot_info: .long 0
.global cpus_arrived
cpus_arrived: .long 0
.align 4096
pml4: .skip 4096
pdpt_low: .skip 4096
pdpt_high: .skip 4096
pd_memory: .skip 4096
pd_apic: .skip 4096

.section .bss.stacks, "aw", @nobits
.align 4096
stacks: .skip STACK_SIZE * 256
