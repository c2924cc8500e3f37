# The short way of a call, and of the reply to it: the two halves of a protocol that `ipc::call` has whole. Both look
# whether anything stands in the way, and change nothing before they know that nothing does; all else goes the long
# way with its registers as they came.
#
# The words of the message stay in the registers in which the sender passed them and the receiver finds them: rsi, rdx,
# r10, r8. Handlers get the third in rcx too, so that this is free here, beside rax and r11, and rbx, rbp, r12 and r13,
# which lie in the sender's frame. The kernel's stack is not used.

# Loads the page table of the thread in rbx, which has everything but the message, and leaves to it with rdi and the
# words. This is `Cell::switch_to` with `Loaded::switch`, and the quick half of `resume_thread`.
.macro deliver
    mov [{OWN_CELL} + {RUNNING}], rbx
    lea rsp, [rbx + {FRAME_TOP}]
    mov [{OWN_CELL} + {ENTRY_STACK}], rsp
    mov rbp, [rbx + {THREAD_ROOT}]
    mov rax, [rbp + {ROOT_VALUE}]
    mov rcx, [{OWN_CELL} + {PUBLIC}]
    cmp [rcx + {LOADED}], rax
    je 8f                                   # a call within one address space
    mov [rcx + {LOADED}], rax               # said before it is loaded, and its notes read after: see smp::shootdown
    mov cr3, rax
    cmp qword ptr [rbp + {ROOT_NOTES}], 0
    jne settle_and_deliver
8:  cmp word ptr [rbx + {THREAD_INTERRUPTED}], 0
    jne deliver_by_frame                    # it has extended state
    cmp qword ptr [{OWN_CELL} + {CELL_EXTENDED}], 0
    jne deliver_by_frame                    # the CPU holds another one's
    load_caller
    xor eax, eax
    sysretq                                 # r9 is 0
.endm

# Takes back what the fast path used of the registers that it was called with.
.macro go_back
    mov rax, [{OWN_CELL} + {ENTRY_STACK}]
    mov rbx, [rax + {RBX}]
    mov r12, [rax + {R12}]
    mov r13, [rax + {R13}]
    xor ebp, ebp
    mov rcx, r10
.endm

# Puts the message into the frame of the thread in rbx, whose end is in rsp.
.macro store_message
    mov qword ptr [rsp + {RAX}], 0
    mov [rsp + {RDI}], rdi
    mov [rsp + {RSI}], rsi
    mov [rsp + {RDX}], rdx
    mov [rsp + {R10}], r10
    mov [rsp + {R8}], r8
.endm

.section .hot.text, "ax"
# ---------------------------------------------------------------------------------------------------------
# `Call(endpoint, word0 … word3, deadline)` where: the handle names a valid capability with the right to use a living
# endpoint; that one's replica here is free and has an idle worker, and none that is away; there is no deadline, there
# are no items, and the caller is no worker and is not being stopped.
.balign 64
.global fast_call
fast_call:
    mov rax, [{OWN_CELL} + {RUNNING}]
    mov rbx, [rax + {THREAD_SPACE}]
    mov rbx, [rbx + {SPACE_PARTS}]
    # `Table::slot`: the CPU's part, the part's frame, the slot there.
    mov ecx, edi
    shr ecx, {SLOT_BITS}
    and ecx, {CPU_MASK}
    mov rbx, [rbx + rcx * 8]
    test rbx, rbx
    jz 1f
    mov ecx, edi
    shr ecx, {CHUNK_BITS}
    and ecx, {CHUNKS_MASK}
    mov rbx, [rbx + rcx * 8 + {CHUNKS}]
    test rbx, rbx
    jz 1f
    mov ecx, edi
    and ecx, {CHUNK_MASK}
    shl ecx, {SLOT_SIZE_BITS}
    add rbx, rcx
    # `cap::lookup`: it is of this life, and all that it was derived from is what it was.
    mov r11, [rbx + {VALIDITY}]
    test r11d, r11d                         # the bit that says that it is used
    jns 1f
    mov rcx, r11
    shr rcx, {VALIDITY_LIFE}
    mov r12, rdi
    shr r12, {HANDLE_LIFE}
    cmp rcx, r12
    jne 1f
    mov r12, [rbx + {PARENT}]
    test r12, r12
    jz 4f
    mov r13, rbx
3:  mov rcx, [r13 + {PARENT_VALIDITY}]
    cmp [r12 + {VALIDITY}], rcx
    jne 1f
    mov r13, r12
    mov r12, [r12 + {PARENT}]
    test r12, r12
    jnz 3b
4:  mov r13, [rbx + {SLOT_TAG}]
    cmp r13b, {ENDPOINT}
    jne 1f
    test byte ptr [rbx + {RIGHTS}], {USE}
    jz 1f
    mov r12, [rbx + {SLOT_OBJECT}]
    mov rbp, [rbx + {SLOT_BADGE}]
    cmp [rbx + {VALIDITY}], r11             # the slot was not used anew while it was read
    jne 1f
    cmp [r12 + {OBJECT_TAG}], r13
    jne 1f
    # `Endpoint::replica`, and what stands in the way.
    mov r12, [r12 + {REPLICAS}]
    mov ecx, [{OWN_CELL} + {ID}]
    mov r12, [r12 + rcx * 8]
    test r12, r12
    jz 1f
    mov rcx, [r12 + {REPLICA_ACTIVE}]
    or rcx, r9                              # the deadline
    jnz 1f
    cmp word ptr [rax + {THREAD_NOTES}], 0
    jne 1f
    mov rbx, [r12 + {REPLICA_IDLE}]
    test rbx, rbx
    jz 1f
    # `ipc::call::enter`. The worker gets the caller's priority with the caller's state, which is that it runs.
    mov rcx, [rbx + {THREAD_NEXT}]
    mov [r12 + {REPLICA_IDLE}], rcx
    mov [r12 + {REPLICA_ACTIVE}], rbx
    movzx ecx, word ptr [rax + {THREAD_STATE}]
    mov [rbx + {THREAD_STATE}], cx
    mov byte ptr [rax + {THREAD_STATE}], {CALLING}
    mov [rax + {THREAD_CALLEE}], rbx
    mov [rbx + {THREAD_CALLER}], rax
    mov [rbx + {THREAD_BADGE}], rbp
    mov rdi, rbp
    deliver
1:  go_back
    jmp {call_slowly}

# ---------------------------------------------------------------------------------------------------------
# `ReplyWait(label, word0 … word3)` where: the running worker has a caller that is only switched back to, nobody waits
# for the replica, and there are no items.
.balign 64
.global fast_reply
fast_reply:
    mov rax, [{OWN_CELL} + {RUNNING}]
    mov r12, [rax + {THREAD_REPLICA}]
    test r12, r12
    jz 1f
    mov rbx, [rax + {THREAD_CALLER}]
    test rbx, rbx
    jz 1f
    test rdi, rdi
    js 1f
    cmp qword ptr [r12 + {REPLICA_WAITING}], 0
    jne 1f
    cmp word ptr [rbx + {THREAD_NOTES}], 0
    jne 1f
    # `Replica::put_idle`, and the caller goes on.
    mov qword ptr [rax + {THREAD_CALLER}], 0
    mov byte ptr [rax + {THREAD_STATE}], {IDLE}
    mov rcx, [r12 + {REPLICA_IDLE}]
    mov [rax + {THREAD_NEXT}], rcx
    mov [r12 + {REPLICA_IDLE}], rax
    mov qword ptr [r12 + {REPLICA_ACTIVE}], 0
    mov qword ptr [rbx + {THREAD_CALLEE}], 0
    mov byte ptr [rbx + {THREAD_STATE}], {RUNS}
    xor r9d, r9d                            # the caller is not shown what the worker had there
    deliver
1:  go_back
    jmp {reply_wait_slowly}

# ---------------------------------------------------------------------------------------------------------
# The rest of `deliver` where the thread finds more to do than to go on.
settle_and_deliver:
    store_message
    mov rsp, [{OWN_CELL} + {CELL_KERNEL_STACK}]
    xor ebp, ebp
    mov rdi, rbx
    call {settle}
    mov rax, rbx
    jmp resume_thread
deliver_by_frame:
    store_message
    mov rax, rbx
    jmp resume_thread
.text
