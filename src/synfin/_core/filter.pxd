# Classic BPF programs: which packets a filter expression lets through. The instruction set is that of S. McCanne and
# V. Jacobson, "The BSD Packet Filter" (USENIX Winter 1993), with modulo and exclusive or as libpcap's pcap/bpf.h numbers
# them. Jumps go forward only and end inside the program, so a run takes at most as many steps as the program has.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from synfin._core.types cimport PF_VLAN, PacketRef

# struct bpf_insn of pcap/bpf.h.
cdef struct Instruction:
    uint16_t code
    uint8_t jt               # how many instructions a jump passes over where its condition holds
    uint8_t jf
    uint32_t k

cdef struct Program:
    uint32_t count
    Instruction* steps

cdef enum:
    MAX_STEPS = 65536
    SCRATCH_WORDS = 16
    VLAN_AT = 12             # where the tag stands that the kernel took out of an Ethernet frame
    VLAN_BYTES = 4
    VLAN_TYPE = 0x8100

# Instruction codes: class, size or operation, mode or operand.
cdef enum:
    LD_W_IMM = 0x00
    LD_W_ABS = 0x20
    LD_H_ABS = 0x28
    LD_B_ABS = 0x30
    LD_W_IND = 0x40
    LD_H_IND = 0x48
    LD_B_IND = 0x50
    LD_MEM = 0x60
    LD_LEN = 0x80
    LDX_IMM = 0x01
    LDX_MEM = 0x61
    LDX_LEN = 0x81
    LDX_HEADER = 0xB1        # X = 4 * (byte & 15), an IPv4 header's length
    ST = 0x02
    STX = 0x03
    ALU = 0x04
    JMP = 0x05
    RET_K = 0x06
    RET_A = 0x16
    TAX = 0x07
    TXA = 0x87
    OPERAND_X = 0x08         # of ALU and JMP: X instead of k
    OP_ADD = 0x00
    OP_SUB = 0x10
    OP_MUL = 0x20
    OP_DIV = 0x30
    OP_OR = 0x40
    OP_AND = 0x50
    OP_SHIFT_LEFT = 0x60
    OP_SHIFT_RIGHT = 0x70
    OP_NEGATE = 0x80
    OP_MODULO = 0x90
    OP_XOR = 0xA0
    JUMP_ALWAYS = 0x00
    JUMP_EQUAL = 0x10
    JUMP_GREATER = 0x20
    JUMP_NOT_LESS = 0x30
    JUMP_BITS = 0x40


# Is the instruction one that filter_accepts knows, with an operand that it can use?
cdef inline bint _is_sound(const Instruction* step) noexcept nogil:
    cdef uint16_t code = step.code
    cdef uint16_t operation = code & 0xF0
    if code in (LD_W_IMM, LD_W_ABS, LD_H_ABS, LD_B_ABS, LD_W_IND, LD_H_IND, LD_B_IND, LD_LEN, LDX_IMM, LDX_LEN,
                LDX_HEADER, RET_K, RET_A, TAX, TXA):
        return True
    if code in (LD_MEM, LDX_MEM, ST, STX):
        return step.k < SCRATCH_WORDS
    if code > 0xFF:
        return False
    if code & 0x07 == ALU:
        if operation in (OP_DIV, OP_MODULO) and not code & OPERAND_X:
            return step.k != 0
        if operation in (OP_SHIFT_LEFT, OP_SHIFT_RIGHT) and not code & OPERAND_X:
            return step.k < 32
        return operation <= OP_XOR and (operation != OP_NEGATE or not code & OPERAND_X)
    if code & 0x07 == JMP:
        return operation <= JUMP_BITS and (operation != JUMP_ALWAYS or not code & OPERAND_X)
    return False


# Can the program be run on any packet? Everything that filter_accepts takes for granted.
cdef inline bint filter_is_sound(const Program* program) noexcept nogil:
    cdef uint32_t at
    cdef uint64_t left
    cdef const Instruction* step
    if program.count == 0 or program.count > MAX_STEPS:
        return False
    for at in range(program.count):
        step = &program.steps[at]
        left = program.count - 1 - at
        if not _is_sound(step):
            return False
        if step.code & 0x07 == JMP:
            if step.code & 0xF0 == JUMP_ALWAYS:
                if step.k >= left:
                    return False
            elif step.jt >= left or step.jf >= left:
                return False
    return step.code & 0x07 == RET_K


cdef inline uint32_t _byte(const PacketRef* p, uint64_t at) noexcept nogil:
    if at < VLAN_AT:
        return p.data[at]
    if at >= VLAN_AT + VLAN_BYTES:
        return p.data[at - VLAN_BYTES]
    return ((<uint32_t>VLAN_TYPE << 16 | p.vlan_tci) >> (8 * (VLAN_AT + VLAN_BYTES - 1 - at))) & 0xFF


# Reads `size` bytes (1, 2 or 4) in network order. False where the packet was not captured that far.
cdef inline bint _load(const PacketRef* p, bint tagged, uint64_t at, uint32_t size, uint32_t* value) noexcept nogil:
    cdef uint32_t i
    if at + size > <uint64_t>p.captured_len + (VLAN_BYTES if tagged else 0):
        return False
    value[0] = 0
    for i in range(size):
        value[0] = value[0] << 8 | (_byte(p, at + i) if tagged else p.data[at + i])
    return True


# A = A operation operand. False for a division by zero, which rejects the packet.
cdef inline bint _calculate(uint32_t* a, uint16_t operation, uint32_t operand) noexcept nogil:
    if operation == OP_ADD:
        a[0] += operand
    elif operation == OP_SUB:
        a[0] -= operand
    elif operation == OP_MUL:
        a[0] *= operand
    elif operation == OP_DIV or operation == OP_MODULO:
        if operand == 0:
            return False
        a[0] = a[0] // operand if operation == OP_DIV else a[0] % operand
    elif operation == OP_OR:
        a[0] |= operand
    elif operation == OP_AND:
        a[0] &= operand
    elif operation == OP_SHIFT_LEFT:
        a[0] = a[0] << operand if operand < 32 else 0
    elif operation == OP_SHIFT_RIGHT:
        a[0] = a[0] >> operand if operand < 32 else 0
    elif operation == OP_NEGATE:
        a[0] = 0 - a[0]
    else:
        a[0] ^= operand
    return True


cdef inline bint _holds(uint16_t condition, uint32_t a, uint32_t operand) noexcept nogil:
    if condition == JUMP_EQUAL:
        return a == operand
    if condition == JUMP_GREATER:
        return a > operand
    if condition == JUMP_NOT_LESS:
        return a >= operand
    return a & operand != 0


# Does the program let the packet through? A load beyond the captured bytes rejects it, as libpcap and the kernel do. The
# program sees the frame as it was on the wire: a VLAN tag that the kernel stripped stands in its place. Before:
# filter_is_sound.
cdef inline bint filter_accepts(const Program* program, const PacketRef* p) noexcept nogil:
    cdef bint tagged = p.flags & PF_VLAN and p.captured_len >= VLAN_AT
    cdef uint32_t a = 0, x = 0, operand
    cdef uint32_t scratch[SCRATCH_WORDS]
    cdef uint16_t code
    cdef const Instruction* step = program.steps
    memset(scratch, 0, sizeof(scratch))
    while True:
        code = step.code
        if code & 0x07 == JMP:
            if code & 0xF0 == JUMP_ALWAYS:
                step += step.k
            else:
                operand = x if code & OPERAND_X else step.k
                step += step.jt if _holds(code & 0xF0, a, operand) else step.jf
        elif code & 0x07 == ALU:
            if not _calculate(&a, code & 0xF0, x if code & OPERAND_X else step.k):
                return False
        elif code == LD_H_ABS or code == LD_B_ABS or code == LD_W_ABS:
            if not _load(p, tagged, step.k, 2 if code == LD_H_ABS else 1 if code == LD_B_ABS else 4, &a):
                return False
        elif code == LD_H_IND or code == LD_B_IND or code == LD_W_IND:
            if not _load(p, tagged, <uint64_t>x + step.k, 2 if code == LD_H_IND else 1 if code == LD_B_IND else 4, &a):
                return False
        elif code == LDX_HEADER:
            if not _load(p, tagged, step.k, 1, &x):
                return False
            x = (x & 0x0F) << 2
        elif code == LD_W_IMM:
            a = step.k
        elif code == LD_LEN:
            a = p.wire_len
        elif code == LD_MEM:
            a = scratch[step.k]
        elif code == LDX_IMM:
            x = step.k
        elif code == LDX_LEN:
            x = p.wire_len
        elif code == LDX_MEM:
            x = scratch[step.k]
        elif code == ST:
            scratch[step.k] = a
        elif code == STX:
            scratch[step.k] = x
        elif code == TAX:
            x = a
        elif code == TXA:
            a = x
        else:
            return (a if code == RET_A else step.k) != 0
        step += 1
