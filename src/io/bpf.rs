//! Programs of ours in the kernel (bpf(2)): written down instruction by instruction, loaded, attached.
//!
//! Owns what an instruction looks like, jumps to names, and the system call. What a program does is `steering`'s and `marking`'s:
//! each is some forty instructions, fewer than a compiler for them would need to be described. The kernel verifies each before it
//! runs, so a wrong one is refused and harms nothing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// bpf(2): commands.
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

/// Kinds of programs: what is asked about a packet,
pub const SOCKET_FILTER: u32 = 1;
/// and who decides where it goes.
pub const SCHED_CLS: u32 = 3;

/// Where a program is attached: in front of what leaves by a device (Linux 6.6).
pub const TCX_EGRESS: u32 = 47;

/// The part of `union bpf_attr` that loading a program needs (bpf(2)).
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of it that attaching one to a device needs.
#[repr(C)]
struct Attach {
    program: u32,
    device: u32,
    place: u32,
    flags: u32,
    relative: u64,
    revision: u64,
}

/// Loads a program. Errors: a kernel without such ones, or one that does not let us (no CAP_BPF, locked down); EINVAL or EACCES
/// if it finds something wrong.
pub fn load(kind: u32, program: &[u64]) -> io::Result<OwnedFd> {
    let load = Load {
        kind,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"MIT OR Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `load` within its size and the instructions and the licence that it points to, all of which
    // outlive the call; it writes nothing, for there is no log.
    made(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) })
}

/// Attaches a program to the device of this number, for as long as what is returned is open. Errors: ENODEV; EINVAL where the kernel
/// has no such place.
pub fn attach(program: BorrowedFd<'_>, place: u32, device: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    let attach = Attach { program, device, place, flags: 0, relative: 0, revision: 0 };
    // SAFETY: the kernel reads `attach` within its size and writes nothing.
    made(unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const attach, size_of::<Attach>()) })
}

fn made(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let Ok(descriptor @ 0..) = RawFd::try_from(descriptor) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What an instruction does.
pub mod op {
    // What is done (bpf(2), linux/bpf.h). LD_ABS and LD_IND read the frame in network byte order into register 0, need the context
    // in register 6, lose registers 1 to 5, and end the program with 0 behind the frame's end.
    pub const LOAD_WORD: u8 = 0x20;
    pub const LOAD_HALF: u8 = 0x28;
    pub const LOAD_BYTE: u8 = 0x30;
    pub const LOAD_WORD_AT: u8 = 0x40;
    pub const READ_WORD: u8 = 0x61;
    pub const WRITE_HALF: u8 = 0x6b;
    pub const MOVE: u8 = 0xbf;
    pub const MOVE_K: u8 = 0xb7;
    pub const XOR: u8 = 0xaf;
    pub const AND_K: u8 = 0x57;
    pub const SHIFT_LEFT_K: u8 = 0x67;
    pub const SHIFT_RIGHT_K: u8 = 0x77;
    pub const ADD_K: u8 = 0x07;
    /// Of 32 bits.
    pub const MULTIPLY32_K: u8 = 0x24;
    pub const REMAINDER32_K: u8 = 0x94;
    /// Of as many low bits as the constant says.
    pub const TO_BIG_ENDIAN: u8 = 0xdc;
    pub const JUMP: u8 = 0x05;
    pub const IF_EQUAL: u8 = 0x15;
    pub const IF_NOT: u8 = 0x55;
    pub const IF_GREATER: u8 = 0x25;
    pub const IF_ANY_BIT: u8 = 0x45;
    /// Loses registers 1 to 5; the result is in register 0.
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

/// A program that is being written; jumps go to labels of type `L`.
pub struct Assembly<L> {
    code: Vec<(u64, Option<L>)>,
    labels: Vec<(L, usize)>,
}

impl<L> Default for Assembly<L> {
    fn default() -> Assembly<L> {
        Assembly { code: Vec::new(), labels: Vec::new() }
    }
}

impl<L: PartialEq> Assembly<L> {
    /// An instruction on the registers `(to, from)` and a constant.
    pub fn add(&mut self, op: u8, registers: (u8, u8), constant: i32) {
        self.code.push((instruction(op, registers, 0, constant), None));
    }

    /// One that reads or writes memory, `offset` bytes from what a register points to.
    pub fn memory(&mut self, op: u8, registers: (u8, u8), offset: i16) {
        self.code.push((instruction(op, registers, offset, 0), None));
    }

    /// One that jumps, or not.
    pub fn jump(&mut self, op: u8, registers: (u8, u8), constant: i32, to: L) {
        self.code.push((instruction(op, registers, 0, constant), Some(to)));
    }

    /// Reads the frame at `at` into register 0.
    pub fn load(&mut self, op: u8, at: i32) {
        self.add(op, (0, 0), at);
    }

    /// What follows has this name.
    pub fn label(&mut self, label: L) {
        self.labels.push((label, self.code.len()));
    }

    /// The program. Jumps count from the instruction behind them; one without its label would count from itself, and is refused by
    /// the kernel.
    pub fn finish(self) -> Vec<u64> {
        let Assembly { code, labels } = self;
        let found = |to: &L| labels.iter().find(|(label, _)| label == to).map(|(_, at)| *at);
        let resolve = |(at, (code, to)): (usize, (u64, Option<L>))| match to.as_ref().map(found) {
            None => code,
            Some(target) => {
                let distance = target.map_or(-1, |target| target as i64 - at as i64 - 1);
                code | u64::from((distance as i16).cast_unsigned()) << 16
            }
        };
        code.into_iter().enumerate().map(resolve).collect()
    }
}

fn instruction(op: u8, (to, from): (u8, u8), offset: i16, constant: i32) -> u64 {
    let registers = u64::from(to | (from << 4)) << 8;
    let offset = u64::from(offset.cast_unsigned()) << 16;
    u64::from(op) | registers | offset | u64::from(constant.cast_unsigned()) << 32
}
