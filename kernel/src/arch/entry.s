# Entries from user mode and back.
#
# While a thread runs in user mode, `ENTRY_STACK`, the stack of its CPU's task-state segment, is the end of that
# thread's register frame, so that the CPU and this code store straight into the thread.
# The rest of the kernel runs on the CPU's one kernel stack, which starts empty at each entry.
# Interrupts are off from here to the return.

# The general registers, in the order of a register frame.
.macro push_registers
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm
.macro pop_registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
.endm

# Stores the state of the thread that made a system call, and takes the kernel's stack.
.macro store_caller
    mov [{OWN_CELL} + {CELL_USER_RSP}], rsp
    mov rsp, [{OWN_CELL} + {ENTRY_STACK}]
    mov [rsp + {RIP}], rcx
    mov [rsp + {RFLAGS}], r11
    mov rcx, [{OWN_CELL} + {CELL_USER_RSP}]
    mov [rsp + {RSP}], rcx
    mov [rsp + {RBX}], rbx
    mov [rsp + {RBP}], rbp
    mov [rsp + {R12}], r12
    mov [rsp + {R13}], r13
    mov [rsp + {R14}], r14
    mov [rsp + {R15}], r15
    mov rsp, [{OWN_CELL} + {CELL_KERNEL_STACK}]
    xor ebp, ebp                            # backtraces end here, not in what the user left in rbp
.endm
# Loads what a system call keeps of a thread the end of whose frame is in rsp, and what `sysretq` wants.
.macro load_caller
    mov rcx, [rsp + {RIP}]
    mov r11, [rsp + {RFLAGS}]
    mov rbx, [rsp + {RBX}]
    mov rbp, [rsp + {RBP}]
    mov r12, [rsp + {R12}]
    mov r13, [rsp + {R13}]
    mov r14, [rsp + {R14}]
    mov r15, [rsp + {R15}]
    mov rsp, [rsp + {RSP}]
.endm
# `store_caller` for an exception or interrupt, of which the CPU stored a part; rdi = the thread.
.macro store_interrupted
    push_registers
    lea rdi, [rsp - {FRAME}]
    mov byte ptr [rdi + {THREAD_INTERRUPTED}], 1
    mov rsp, [{OWN_CELL} + {CELL_KERNEL_STACK}]
    push 2                                  # flags that the user may have set: direction, and the one that
    popfq                                   # lets the kernel access user pages
    xor ebp, ebp
.endm

# ---------------------------------------------------------------------------------------------------------
# `syscall`: rax = number; rdi, rsi, rdx, r10, r8, r9 = arguments; rcx, r11 = the CPU's own use.
# A handler returns rax = the thread to switch to, or null to return rdx to the caller with rbx, rbp, rsp and
# r12 to r15 kept and all other registers cleared; or it goes to `resume_thread` by itself.
.section .hot.text, "ax"
.balign 64
.global syscall_entry
syscall_entry:
    store_caller
    cmp rax, {SYSCALL_COUNT}
    jae 3f
    mov rcx, r10
    call [{SYSCALL_TABLE} + rax * 8]
leave_call:
    test rax, rax                           # a thread to switch to, or null
    jnz resume_thread
    mov rax, rdx
    mov rdi, [{OWN_CELL} + {ENTRY_STACK}]
    mov rcx, [rdi + {RIP}]
    mov r11, [rdi + {RFLAGS}]
    mov rbp, [rdi + {RBP}]
    mov rsp, [rdi + {RSP}]
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    sysretq
3:  call {bad_syscall}
    jmp leave_call

# ---------------------------------------------------------------------------------------------------------
# Leaves to the thread in rax: cell, task-state segment and CR3 are set for it already.
.balign 16
.global resume_thread
resume_thread:
    cmp word ptr [rax + {THREAD_INTERRUPTED}], 0
    jne 2f                                  # it was interrupted, or has extended state
    cmp qword ptr [{OWN_CELL} + {CELL_EXTENDED}], 0
    jne 4f                                  # the CPU holds another one's extended state
1:  lea rsp, [rax + {FRAME_TOP}]
    # It is inside a system call: the result is in its rax, a message's words are in its other registers (or
    # what they were when it last received one), and the rest of what a call does not keep is cleared.
    mov rax, [rsp + {RAX}]
    mov rdi, [rsp + {RDI}]
    mov rsi, [rsp + {RSI}]
    mov rdx, [rsp + {RDX}]
    mov r10, [rsp + {R10}]
    mov r8, [rsp + {R8}]
    load_caller
    xor r9d, r9d
    sysretq
2:  cmp byte ptr [rax + {THREAD_EXTENDED}], 0
    jne 5f
    cmp qword ptr [{OWN_CELL} + {CELL_EXTENDED}], 0
    jne 4f
3:  mov byte ptr [rax + {THREAD_INTERRUPTED}], 0
    lea rsp, [rax + {FRAME}]
    pop_registers
    add rsp, 16
    iretq
5:  cmp [{OWN_CELL} + {CELL_EXTENDED}], rax
    je 6f
4:  mov rsp, [{OWN_CELL} + {CELL_KERNEL_STACK}]
    mov rdi, rax
    call {exchange}
6:  cmp byte ptr [rax + {THREAD_INTERRUPTED}], 0
    jne 3b
    jmp 1b

# ---------------------------------------------------------------------------------------------------------
# Exceptions and interrupts. The CPU pushed ss, rsp, rflags, cs, rip and for some vectors an error code.
.balign 16
user_trap:
    store_interrupted
    call {user_trap}
    jmp resume_thread

.text
# ---------------------------------------------------------------------------------------------------------
# The entries of a kernel that traces, or runs as the variant `biglock`: the same with a look in between. rbx, which
# was stored, holds who came in.
.balign 64
.global hooked_syscall_entry
hooked_syscall_entry:
    store_caller
    mov rbx, [{OWN_CELL} + {ENTRY_STACK}]
    sub rbx, {FRAME_TOP}
    push rax
    push rdi
    push rsi
    push rdx
    push r10
    push r8
    push r9
    push rax
    mov rdi, rax
    call {entered_call}
    pop rax
    pop r9
    pop r8
    pop r10
    pop rdx
    pop rsi
    pop rdi
    pop rax
    cmp rax, {SYSCALL_COUNT}
    jae 3f
    mov rcx, r10
    call [{HOOKED_TABLE} + rax * 8]
2:  push rax
    push rdx
    mov rdi, rax
    mov rsi, rbx
    call {leaving}
    mov rax, [{OWN_CELL} + {ENTRY_STACK}]
    mov rbx, [rax + {RBX}]
    pop rdx
    pop rax
    jmp leave_call
3:  call {bad_syscall}
    jmp 2b

.global hooked_user_trap
hooked_user_trap:
    store_interrupted
    mov rbx, rdi
    call {entered_trap}
    mov rdi, rbx
    call {user_trap}
    mov r12, rax
    mov rdi, rax
    mov rsi, rbx
    call {leaving}
    mov rax, r12
    jmp resume_thread

.balign 16
trap:
    test byte ptr [rsp + 24], 3
.global trap_to_user
trap_to_user:                               # `hook_traps` lets this lead to `hooked_user_trap`
    jnz user_trap
    # From the kernel itself: an interrupt while idle, or a fault that ends it.
kernel_trap:
    push_registers
    push 2
    popfq
    mov rdi, rsp
    call {kernel_trap}
    pop_registers
    add rsp, 16
    iretq

# NMI, double fault, machine check: they are on stacks of their own and never return to the thread. They can come
# anywhere in the kernel.
fatal_trap:
    push_registers
    push 2
    popfq
    mov rdi, rsp
    call {kernel_trap}
    ud2

# One stub a vector, 16 bytes each: completes the frame with a zero where the CPU pushes no error code, and
# the vector.
.balign 16
.global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    push vector
    .if (vector == 2) || (vector == 8) || (vector == 18)
    jmp fatal_trap
    .else
    jmp trap
    .endif
    .set vector, vector + 1
    .endr
