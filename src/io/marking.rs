//! Super-frames of TCP that libpcap is to have whole: a program of ours in the kernel (bpf(2), TCX, Linux 6.6) marks them and leads
//! them past where they would be cut.
//!
//! Owns the program and its attachment. libpcap says nothing of what is left to do on a frame, so the kernel is made to complete
//! each before it gets there (`host::plan`): cutting, checksums, and a slot of the ring for each segment cost as much processor
//! time as all the rest of the way. A super-frame's segments are as long as its sender thinks that its way takes, which nobody
//! can guess: the program writes it into the frame (`wire::mark`).
//!
//! ```text
//! bridge > [rnq] whatever leaves by this end of the pair
//!            TCP, to be cut        marked, put into what [rnp] receives      libpcap
//!            of the reserved type  dropped: nobody may look marked
//!            all the rest          on its way: completed, cut, sent to [rnp]
//! ```
//!
//! Both ways end in the queue of the processor that sends, as with any veth pair: frames of a flow keep their order unless its
//! sender's work moves to another one meanwhile. To have the kernel spread flows by their hash (receive packet steering) keeps it
//! then too, but takes 7 % of a stream: the copy into libpcap's ring is made on the wrong processor.

use super::bpf::{self, Assembly, op};
use super::pcap::SUPER;
use crate::wire::mark::{CHECKSUM, MARKED, NETWORK, PLAIN_IPV4, TCP, TRANSPORT, TYPE};
use nix::net::if_::if_nametoindex;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes from the start of struct __sk_buff (linux/bpf.h).
const LENGTH: i16 = 0;
const TAGGED: i16 = 20;
const SEGMENT: i16 = 176;
/// Functions of the kernel (linux/bpf.h).
const STORE_BYTES: i32 = 9;
const REDIRECT: i32 = 23;
/// To what a device receives.
const INGRESS: i32 = 1;
/// What becomes of a frame: whatever is next says; dropped.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// Marks while it lives.
pub struct Marking {
    _attached: OwnedFd,
}

impl Marking {
    /// Super-frames that leave by the device `bridged` are marked and received by `captured` instead, both in the network namespace
    /// of the calling thread. Errors: ENODEV; those of [`available`].
    pub fn between(bridged: &str, captured: &str) -> io::Result<Marking> {
        let number = |name: &str| if_nametoindex(name).map_err(io::Error::from);
        let program = bpf::load(bpf::SCHED_CLS, &program(number(captured)?))?;
        Ok(Marking { _attached: bpf::attach(program.as_fd(), bpf::TCX_EGRESS, number(bridged)?)? })
    }
}

/// Whether the kernel has what this needs and lets us use it. Errors: EINVAL before Linux 6.6, EPERM without CAP_BPF and
/// CAP_NET_ADMIN.
pub fn available() -> io::Result<()> {
    let program = bpf::load(bpf::SCHED_CLS, &program(1))?;
    // No device has this number: that is noticed after everything else.
    match bpf::attach(program.as_fd(), bpf::TCX_EGRESS, i32::MAX.cast_unsigned()) {
        Err(why) if why.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        attached => attached.map(drop),
    }
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Ip6,
    Mark,
    Next,
    Drop,
}

/// Register 6 holds the context, register 7 bytes of payload in each segment, register 8 where the checksum is.
fn program(captured: u32) -> Vec<u64> {
    let mut asm = Assembly::default();
    let at = |at: usize| i32::try_from(at).unwrap_or(i32::MAX);
    asm.add(op::MOVE, (6, 1), 0);
    asm.load(op::LOAD_HALF, at(TYPE));
    asm.jump(op::IF_EQUAL, (0, 0), MARKED.into(), To::Drop);
    asm.memory(op::READ_WORD, (7, 6), SEGMENT);
    asm.jump(op::IF_EQUAL, (7, 0), 0, To::Next);
    asm.memory(op::READ_WORD, (1, 6), TAGGED);
    asm.jump(op::IF_NOT, (1, 0), 0, To::Next);
    asm.memory(op::READ_WORD, (1, 6), LENGTH);
    asm.jump(op::IF_GREATER, (1, 0), at(SUPER), To::Next);
    asm.add(op::MOVE_K, (8, 0), (TRANSPORT.1 + CHECKSUM).into());
    asm.jump(op::IF_EQUAL, (0, 0), 0x86dd, To::Ip6);
    asm.jump(op::IF_NOT, (0, 0), 0x0800, To::Next);
    asm.add(op::MOVE_K, (8, 0), (TRANSPORT.0 + CHECKSUM).into());
    asm.load(op::LOAD_BYTE, at(NETWORK));
    asm.jump(op::IF_NOT, (0, 0), PLAIN_IPV4.into(), To::Next);
    asm.load(op::LOAD_BYTE, at(NETWORK + 9));
    asm.jump(op::IF_NOT, (0, 0), TCP.into(), To::Next);
    asm.jump(op::JUMP, (0, 0), 0, To::Mark);
    asm.label(To::Ip6);
    asm.load(op::LOAD_BYTE, at(NETWORK + 6));
    asm.jump(op::IF_NOT, (0, 0), TCP.into(), To::Next);

    asm.label(To::Mark);
    asm.add(op::TO_BIG_ENDIAN, (7, 0), 16);
    store(&mut asm, 7, |asm| asm.add(op::MOVE, (2, 8), 0));
    asm.jump(op::IF_NOT, (0, 0), 0, To::Next);
    asm.add(op::MOVE_K, (7, 0), MARKED.into());
    store(&mut asm, 7, |asm| asm.add(op::MOVE_K, (2, 0), at(TYPE)));
    // What could be written once can be again.
    asm.jump(op::IF_NOT, (0, 0), 0, To::Drop);
    asm.add(op::MOVE_K, (1, 0), captured.cast_signed());
    asm.add(op::MOVE_K, (2, 0), INGRESS);
    asm.add(op::CALL, (0, 0), REDIRECT);
    asm.add(op::EXIT, (0, 0), 0);

    for (label, verdict) in [(To::Next, NEXT), (To::Drop, DROP)] {
        asm.label(label);
        asm.add(op::MOVE_K, (0, 0), verdict);
        asm.add(op::EXIT, (0, 0), 0);
    }
    asm.finish()
}

/// Writes the low 16 bits of a register into the frame, where `place` has register 2 say; register 0 is 0 then.
fn store(asm: &mut Assembly<To>, register: u8, place: impl FnOnce(&mut Assembly<To>)) {
    const STACK: u8 = 10;
    asm.memory(op::WRITE_HALF, (STACK, register), -2);
    asm.add(op::MOVE, (1, 6), 0);
    place(asm);
    asm.add(op::MOVE, (3, STACK), 0);
    asm.add(op::ADD_K, (3, 0), -2);
    asm.add(op::MOVE_K, (4, 0), 2);
    asm.add(op::MOVE_K, (5, 0), 0);
    asm.add(op::CALL, (0, 0), STORE_BYTES);
}
