// User-mode loops around kernel entries and exits, and the kernel's ends of them. The user parts are
// executed at their load address (bit 63 clear), so they are position-independent.
.set LEAVE_USER, 2

.macro mark verb, arg
    .byte 0x0f, 0x1f, 0x80
    .long 0x5c110000 | (\verb << 8) | \arg
.endm

// One loop: `how` is the return that the kernel is asked for, `number` the workload.
.macro user_loop name, entry, vector, how, number
.global \name
\name:
    mov r12d, 20
2:  mov eax, \how
    \entry \vector
    dec r12
    jnz 2b
    mark 1, \number
3:  mov eax, \how
    \entry \vector
    mark 3, \number
    dec rbx
    jnz 3b
    mark 2, \number
    mov eax, LEAVE_USER
    syscall
.endm

.code64
.section .text.user, "ax"
    user_loop user_syscall_sysret, syscall, , 0, 210
    user_loop user_syscall_iret, syscall, , 1, 211
    user_loop user_interrupt_iret, int, 0x80, 0, 212
    user_loop user_interrupt_sysret, int, 0x80, 1, 213

.section .text.kernel, "ax"
// rdi: user address, rsi: user stack, rdx: operations
.global enter_user
enter_user:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [kernel_stack], rsp
    mov rcx, rdi
    mov rbx, rdx
    mov r11d, 2
    mov rsp, rsi
    sysretq

.global syscall_entry
syscall_entry:
    cmp eax, 1
    je 2f
    ja 3f
    sysretq
2:  mov rdx, rsp
    push 0x33
    push rdx
    push r11
    push 0x3b
    push rcx
    iretq
3:  mov rsp, [kernel_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.global interrupt_entry
interrupt_entry:
    cmp eax, 1
    je 2f
    iretq
2:  pop rcx
    pop r11
    pop r11
    pop rsp
    sysretq

.global ipi_entry
ipi_entry:
    push rax
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    pop rax
    lock inc qword ptr [ipis_taken]
    iretq

.global fault_entry
fault_entry:
    mov al, 0x12
    mov dx, 0xf4
    out dx, al
    cli
    hlt

.section .data.kernel, "aw"
.align 64
kernel_stack: .quad 0
.align 64
.global ipis_taken
ipis_taken: .quad 0
.align 64
