# The first instructions: PVH hands over in 32-bit protected mode without paging, `ebx` holding the
# physical address of the start information. Long mode is entered on boot page tables that map the first
# GiB three times: at 0 (for the switch), at PHYS_MAP and at KERNEL_BASE.

.section .note.pvh, "a", @note
    .balign 4
    .long 4                                 # length of the name, "Xen\0"
    .long 8                                 # length of the value
    .long 18                                # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start - {KERNEL_BASE}

.section .boot.text, "ax"
.code32
.global pvh_start
pvh_start:
    cld
    mov esi, ebx

    lea edi, [boot_pd - {KERNEL_BASE}]
    mov eax, 0x83                           # present, writable, 2 MiB
    mov ecx, 512
2:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b

    lea eax, [boot_pd - {KERNEL_BASE} + 3]
    mov [boot_pdpt_low - {KERNEL_BASE}], eax
    mov [boot_pdpt_high - {KERNEL_BASE} + 510 * 8], eax
    lea eax, [boot_pdpt_low - {KERNEL_BASE} + 3]
    mov [boot_pml4 - {KERNEL_BASE}], eax
    mov [boot_pml4 - {KERNEL_BASE} + 256 * 8], eax
    lea eax, [boot_pdpt_high - {KERNEL_BASE} + 3]
    mov [boot_pml4 - {KERNEL_BASE} + 511 * 8], eax

    lea eax, [boot_pml4 - {KERNEL_BASE}]
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20                            # PAE
    mov cr4, eax
    mov ecx, 0xc0000080                     # EFER
    rdmsr
    or eax, 0x900                           # LME, NXE
    wrmsr
    mov eax, cr0
    or eax, 0x80010001                      # PG, WP, PE
    mov cr0, eax

    lea esp, [boot_stack_top - {KERNEL_BASE}]
    lgdt [boot_gdt_pointer - {KERNEL_BASE}]
    lea eax, [boot_long_mode - {KERNEL_BASE}]
    push 8
    push eax
    retf

.code64
boot_long_mode:
    xor eax, eax
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset boot_stack_top
    mov edi, esi
    xor ebp, ebp
    push rbp
    movabs rax, offset {start}
    jmp rax

# The application processors' way into the kernel: copied to TRAMPOLINE (below 1 MiB, page-aligned), where
# a start-up IPI begins in real mode with cs = TRAMPOLINE / 16. It takes the boot page tables too, finds its
# CPU number by its APIC ID in `APIC_IDS`, and continues on that CPU's own kernel stack.

.global trampoline_start
.global trampoline_end
.balign 16
.code16
trampoline_start:
    jmp 2f
    .balign 8
trampoline_gdt_pointer:                     # at offset 8
    .word 31
    .long trampoline_gdt - trampoline_start + {TRAMPOLINE}
2:  cli
    cld
    xor ax, ax
    mov ds, ax
    lgdt [{TRAMPOLINE} + 8]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    # ljmp 0x18:trampoline_32, by hand: an assembler's syntax for it differs
    .byte 0x66, 0xea
    .long trampoline_32 - trampoline_start + {TRAMPOLINE}
    .word 0x18

.code32
trampoline_32:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    lea eax, [boot_pml4 - {KERNEL_BASE}]
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    or eax, 0x80010001
    mov cr0, eax
    .byte 0xea
    .long trampoline_64 - trampoline_start + {TRAMPOLINE}
    .word 0x08

.code64
trampoline_64:
    movabs rax, offset ap_high
    jmp rax

    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9a000000ffff                # 0x08: 64-bit code
    .quad 0x00cf92000000ffff                # 0x10: data
    .quad 0x00cf9a000000ffff                # 0x18: 32-bit code
trampoline_end:

ap_high:
    xor eax, eax
    mov ss, eax
    mov ds, eax
    mov es, eax
    cpuid                                   # leaf 0: the highest leaf
    cmp eax, 0xb
    jb 2f
    mov eax, 0xb                            # leaf 0xb: edx is the x2APIC ID, where ebx is not zero
    xor ecx, ecx
    cpuid
    test ebx, ebx
    jnz 3f
2:  mov eax, 1                              # leaf 1: the initial APIC ID is in ebx's high byte
    cpuid
    mov edx, ebx
    shr edx, 24
3:  lea rsi, [rip + {APIC_IDS}]
    xor edi, edi
4:  cmp edi, [rip + {CPU_COUNT}]
    jae 5f
    cmp [rsi + rdi * 4], edx
    je 6f
    inc edi
    jmp 4b
5:  cli                                     # not a CPU that the firmware listed
    hlt
    jmp 5b
6:  mov rax, rdi
    shl rax, {CPU_AREA_SHIFT}
    movabs rsp, {STACK_TOP}
    add rsp, rax
    xor ebp, ebp
    push rbp
    movabs rax, offset {start_ap}
    jmp rax

.section .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff
boot_gdt_pointer:
    .word 15
    .quad boot_gdt - {KERNEL_BASE}

.section .bss.boot, "aw", @nobits
    .balign 4096
.global boot_pml4
boot_pml4:
    .skip 4096
boot_pdpt_low:
    .skip 4096
boot_pdpt_high:
    .skip 4096
boot_pd:
    .skip 4096
boot_stack:
    .skip 32768
boot_stack_top:
.text
