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

use super::bpf::{self, Assembly, op};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// linux/if_tun.h; libc lacks it: _IOR('T', 224, int).
const TUNSETSTEERINGEBPF: libc::c_ulong = 0x8004_54e0;

/// Frames of the device that `queue` belongs to go to its `queues` queues (at least 2) as the head of this file says.
/// Errors: a kernel without it, or one that does not let us (no CAP_BPF, locked down): frames go as they went before.
pub fn steer(queue: &File, queues: u32) -> io::Result<()> {
    let loaded = bpf::load(bpf::SOCKET_FILTER, &program(queues))?;
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
    Addresses4,
    Ip6,
    Addresses6,
    Mix,
    Rest,
}

const TCP: i32 = 6;
const UDP: i32 = 17;
/// IPv6's fragment header.
const FRAGMENT: i32 = 44;
/// 2^32 by the golden ratio: spreads neighbouring numbers (Knuth, The Art of Computer Programming, volume 3, 6.4).
const SPREAD: i32 = 0x9e37_79b1_u32.cast_signed();

/// Register 7 gathers the addresses, register 9 the ports; register 8 holds the length of an IPv4 header.
fn program(queues: u32) -> Vec<u64> {
    let mut asm = Assembly::default();
    asm.add(op::MOVE, (6, 1), 0);
    asm.add(op::MOVE_K, (9, 0), 0);
    asm.load(op::LOAD_HALF, 12);
    asm.jump(op::IF_EQUAL, (0, 0), 0x86dd, To::Ip6);
    asm.jump(op::IF_NOT, (0, 0), 0x0800, To::Rest);
    asm.load(op::LOAD_HALF, 20);
    asm.jump(op::IF_ANY_BIT, (0, 0), 0x3fff, To::Addresses4);
    asm.load(op::LOAD_BYTE, 23);
    asm.jump(op::IF_EQUAL, (0, 0), UDP, To::Addresses4);
    asm.jump(op::IF_NOT, (0, 0), TCP, To::Rest);
    asm.load(op::LOAD_BYTE, 14);
    asm.add(op::AND_K, (0, 0), 0xf);
    asm.add(op::SHIFT_LEFT_K, (0, 0), 2);
    asm.add(op::MOVE, (8, 0), 0);
    asm.add(op::LOAD_WORD_AT, (0, 8), 14);
    asm.add(op::MOVE, (9, 0), 0);
    asm.label(To::Addresses4);
    asm.load(op::LOAD_WORD, 26);
    asm.add(op::MOVE, (7, 0), 0);
    asm.load(op::LOAD_WORD, 30);
    asm.add(op::XOR, (7, 0), 0);
    asm.jump(op::JUMP, (0, 0), 0, To::Mix);

    asm.label(To::Ip6);
    asm.load(op::LOAD_BYTE, 20);
    asm.jump(op::IF_EQUAL, (0, 0), UDP, To::Addresses6);
    asm.jump(op::IF_EQUAL, (0, 0), FRAGMENT, To::Addresses6);
    asm.jump(op::IF_NOT, (0, 0), TCP, To::Rest);
    asm.load(op::LOAD_WORD, 54);
    asm.add(op::MOVE, (9, 0), 0);
    asm.label(To::Addresses6);
    asm.add(op::MOVE_K, (7, 0), 0);
    for at in (22..54).step_by(4) {
        asm.load(op::LOAD_WORD, at);
        asm.add(op::XOR, (7, 0), 0);
    }

    // The ports of both directions give the same.
    asm.label(To::Mix);
    asm.add(op::MOVE, (1, 9), 0);
    asm.add(op::SHIFT_RIGHT_K, (1, 0), 16);
    asm.add(op::XOR, (9, 1), 0);
    asm.add(op::AND_K, (9, 0), 0xffff);
    asm.add(op::XOR, (7, 9), 0);
    asm.add(op::MULTIPLY32_K, (7, 0), SPREAD);
    asm.add(op::SHIFT_RIGHT_K, (7, 0), 16);
    asm.add(op::REMAINDER32_K, (7, 0), queues.saturating_sub(1).max(1).cast_signed());
    asm.add(op::ADD_K, (7, 0), 1);
    asm.add(op::MOVE, (0, 7), 0);
    asm.add(op::EXIT, (0, 0), 0);

    asm.label(To::Rest);
    asm.add(op::MOVE_K, (0, 0), 0);
    asm.add(op::EXIT, (0, 0), 0);
    asm.finish()
}
