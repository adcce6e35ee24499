//! Which queue of a TAP a frame waits in: a program of ours in the kernel (bpf(2), TUNSETSTEERINGEBPF, Linux 4.16) says so.
//!
//! Owns the program and its loading. Without it the kernel puts a flow into the queue that frames of it were last written to, so
//! that one thread finds all flows of its own in one queue, and whoever sends a little waits behind whoever sends much.
//!
//! ```text
//! TCP                 1 + hash of addresses and ports % (queues - 1)     both directions of a flow alike, on every host
//! UDP, fragments      1 + hash of addresses % (queues - 1)               fragments have no ports, and must not be overtaken by what is
//!                                                                        whole: network cards spread UDP so by default, too
//! all the rest        0                                                  ARP, ping, what has a VLAN tag
//! ```
//!
//! Over IPv4 and IPv6.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// linux/if_tun.h; libc lacks it: _IOR('T', 224, int).
const TUNSETSTEERINGEBPF: libc::c_ulong = 0x8004_54e0;
const BPF_PROG_LOAD: libc::c_long = 5;
const SOCKET_FILTER: u32 = 1;

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

/// Frames of the device that `queue` belongs to go to its `queues` queues (at least 2) as the head of this file says.
/// Errors: a kernel without it, or one that does not let us (no CAP_BPF, locked down): frames go as they went before.
pub fn steer(queue: &File, queues: u32) -> io::Result<()> {
    let program = program(queues);
    let load = Load {
        kind: SOCKET_FILTER,
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
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    let Ok(loaded @ 0..) = RawFd::try_from(loaded) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let number = loaded.as_raw_fd();
    // SAFETY: the kernel reads one int, which outlives the call. The device keeps a hold of the program of its own.
    match unsafe { libc::ioctl(queue.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    Addresses4,
    Ip6,
    Addresses6,
    Mix,
    Rest,
}

// What is done (bpf(2), linux/bpf.h). LD_ABS and LD_IND read the frame in network byte order into register 0, need the context
// in register 6, lose registers 1 to 5, and end the program with 0 behind the frame's end.
const LOAD_WORD: u8 = 0x20;
const LOAD_HALF: u8 = 0x28;
const LOAD_BYTE: u8 = 0x30;
const LOAD_WORD_AT: u8 = 0x40;
const MOVE: u8 = 0xbf;
const MOVE_K: u8 = 0xb7;
const XOR: u8 = 0xaf;
const AND_K: u8 = 0x57;
const SHIFT_LEFT_K: u8 = 0x67;
const SHIFT_RIGHT_K: u8 = 0x77;
const ADD_K: u8 = 0x07;
/// Of 32 bits.
const MULTIPLY32_K: u8 = 0x24;
const REMAINDER32_K: u8 = 0x94;
const JUMP: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_NOT: u8 = 0x55;
const IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

const TCP: i32 = 6;
const UDP: i32 = 17;
/// IPv6's fragment header.
const FRAGMENT: i32 = 44;
/// 2^32 by the golden ratio: spreads neighbouring numbers (Knuth, The Art of Computer Programming, volume 3, 6.4).
const SPREAD: i32 = 0x9e37_79b1_u32.cast_signed();

struct Assembly {
    code: Vec<(u64, To)>,
    labels: Vec<(To, usize)>,
}

impl Assembly {
    fn add(&mut self, code: u8, (to, from): (u8, u8), constant: i32, jump: To) {
        let registers = u64::from(to | (from << 4)) << 8;
        let constant = u64::from(constant.cast_unsigned()) << 32;
        self.code.push((u64::from(code) | registers | constant, jump));
    }

    fn load(&mut self, code: u8, at: i32) {
        self.add(code, (0, 0), at, To::Next);
    }

    fn label(&mut self, label: To) {
        self.labels.push((label, self.code.len()));
    }

    /// Jumps count from the instruction behind them.
    fn finish(self) -> Vec<u64> {
        let Assembly { code, labels } = self;
        let found = |to: To| labels.iter().find(|(label, _)| *label == to).map(|(_, at)| *at);
        let jump = |(at, (code, to)): (usize, (u64, To))| match found(to) {
            Some(target) => code | ((target - at - 1) as u64) << 16,
            None => code,
        };
        code.into_iter().enumerate().map(jump).collect()
    }
}

/// Register 7 gathers the addresses, register 9 the ports; register 8 holds the length of an IPv4 header.
fn program(queues: u32) -> Vec<u64> {
    let mut asm = Assembly { code: Vec::new(), labels: Vec::new() };
    asm.add(MOVE, (6, 1), 0, To::Next);
    asm.add(MOVE_K, (9, 0), 0, To::Next);
    asm.load(LOAD_HALF, 12);
    asm.add(IF_EQUAL, (0, 0), 0x86dd, To::Ip6);
    asm.add(IF_NOT, (0, 0), 0x0800, To::Rest);
    asm.load(LOAD_HALF, 20);
    asm.add(IF_ANY_BIT, (0, 0), 0x3fff, To::Addresses4);
    asm.load(LOAD_BYTE, 23);
    asm.add(IF_EQUAL, (0, 0), UDP, To::Addresses4);
    asm.add(IF_NOT, (0, 0), TCP, To::Rest);
    asm.load(LOAD_BYTE, 14);
    asm.add(AND_K, (0, 0), 0xf, To::Next);
    asm.add(SHIFT_LEFT_K, (0, 0), 2, To::Next);
    asm.add(MOVE, (8, 0), 0, To::Next);
    asm.add(LOAD_WORD_AT, (0, 8), 14, To::Next);
    asm.add(MOVE, (9, 0), 0, To::Next);
    asm.label(To::Addresses4);
    asm.load(LOAD_WORD, 26);
    asm.add(MOVE, (7, 0), 0, To::Next);
    asm.load(LOAD_WORD, 30);
    asm.add(XOR, (7, 0), 0, To::Next);
    asm.add(JUMP, (0, 0), 0, To::Mix);

    asm.label(To::Ip6);
    asm.load(LOAD_BYTE, 20);
    asm.add(IF_EQUAL, (0, 0), UDP, To::Addresses6);
    asm.add(IF_EQUAL, (0, 0), FRAGMENT, To::Addresses6);
    asm.add(IF_NOT, (0, 0), TCP, To::Rest);
    asm.load(LOAD_WORD, 54);
    asm.add(MOVE, (9, 0), 0, To::Next);
    asm.label(To::Addresses6);
    asm.add(MOVE_K, (7, 0), 0, To::Next);
    for at in (22..54).step_by(4) {
        asm.load(LOAD_WORD, at);
        asm.add(XOR, (7, 0), 0, To::Next);
    }

    // The ports of both directions give the same.
    asm.label(To::Mix);
    asm.add(MOVE, (1, 9), 0, To::Next);
    asm.add(SHIFT_RIGHT_K, (1, 0), 16, To::Next);
    asm.add(XOR, (9, 1), 0, To::Next);
    asm.add(AND_K, (9, 0), 0xffff, To::Next);
    asm.add(XOR, (7, 9), 0, To::Next);
    asm.add(MULTIPLY32_K, (7, 0), SPREAD, To::Next);
    asm.add(SHIFT_RIGHT_K, (7, 0), 16, To::Next);
    asm.add(REMAINDER32_K, (7, 0), queues.saturating_sub(1).max(1).cast_signed(), To::Next);
    asm.add(ADD_K, (7, 0), 1, To::Next);
    asm.add(MOVE, (0, 7), 0, To::Next);
    asm.add(EXIT, (0, 0), 0, To::Next);

    asm.label(To::Rest);
    asm.add(MOVE_K, (0, 0), 0, To::Next);
    asm.add(EXIT, (0, 0), 0, To::Next);
    asm.finish()
}
