//! What the kernel keeps from a captured interface: a filter of the classic kind (BPF, socket(7), SO_ATTACH_FILTER).
//!
//! Owns the program and its attachment, to a socket of AF_PACKET as to libpcap's. A tag of 802.1Q is not in the frame when it is
//! asked: the kernel has it beside.
//!
//! ```text
//! frames that this host sends (our own injections among them), or that are for the interface itself   dropped
//! datagrams and connections of these ports, whoever's: the mesh's own, and VXLAN to VTEPs             dropped
//! everything else                                                                                     passes whole
//! ```
//!
//! Without the second line the mesh's datagrams would come back as frames where the interface sees the way to other members: each
//! would make another one, for ever.

use crate::wire::mark::{MARKED, NETWORK, PLAIN_IPV4, TCP, TYPE};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What passes: all bytes of a frame.
const WHOLE: u32 = u32::MAX;

const PACKET_HOST: u32 = 0;
const PACKET_OUTGOING: u32 = 4;

const fn load(width: u32, at: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | width | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

const fn load_beyond_header(at: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16, jt: 0, jf: 0, k: at }
}

/// Jumps over `jt` or `jf` instructions.
const fn equal(to: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf, k: to }
}

const fn any_bit(of: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, jt, jf, k: of }
}

/// Jumps over `count` instructions.
const fn skip(count: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: count }
}

const fn end(with: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: with }
}

/// Most ports that are looked for: jumps are 8 bits wide.
const PORTS_MAX: usize = 60;

/// Nothing that leaves, or is for the interface itself, passes.
fn direction() -> [libc::sock_filter; 4] {
    let kind = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    [load(libc::BPF_W, kind), equal(PACKET_OUTGOING, 1, 0), equal(PACKET_HOST, 0, 1), end(0)]
}

/// Nothing of UDP or TCP that has one of these ports passes; fragments but the first have none, and do.
fn without(ports: &[u16]) -> Vec<libc::sock_filter> {
    let ports = ports.get(..PORTS_MAX).unwrap_or(ports);
    // Each family: where ports are, to be compared with all, and then the verdicts, which follow them at the end.
    let compare = |loads: [libc::sock_filter; 2], to_drop: usize| {
        let count = loads.len() * (1 + ports.len());
        let mut program = Vec::new();
        for (nth, load) in loads.into_iter().enumerate() {
            program.push(load);
            for (n, port) in ports.iter().enumerate() {
                let left = count - (nth * (1 + ports.len()) + 1 + n + 1);
                program.push(equal((*port).into(), (left + to_drop) as u8, 0));
            }
        }
        program
    };
    let protocol = |at: u32| [load(libc::BPF_B, at), equal(libc::IPPROTO_UDP as u32, 1, 0)];
    // After the ports of version 4 the frame passes; behind are those of version 6, "passes" and "dropped".
    let six = compare([load(libc::BPF_H, 54), load(libc::BPF_H, 56)], 1);
    let mut four = protocol(23).to_vec();
    four.extend([
        // Neither: over the rest of the test to its "passes".
        equal(libc::IPPROTO_TCP as u32, 0, 2),
        load(libc::BPF_H, 20),
        any_bit(0x1fff, 0, 1),
        end(WHOLE),
        // The length of the IPv4 header into X.
        libc::sock_filter { code: (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16, jt: 0, jf: 0, k: 14 },
    ]);
    let beside = 3 + protocol(20).len() + 1 + six.len() + 1;
    four.extend(compare([load_beyond_header(14), load_beyond_header(16)], beside));
    four.push(end(WHOLE));
    let mut program = vec![load(libc::BPF_H, 12), equal(0x0800, 0, four.len() as u8)];
    program.extend(four);
    program.push(equal(0x86dd, 1, 0));
    program.push(end(WHOLE));
    program.extend(protocol(20));
    program.push(equal(libc::IPPROTO_TCP as u32, 0, six.len() as u8));
    program.extend(six);
    program.extend([end(WHOLE), end(0)]);
    program
}

/// What of it one socket is to have, where two share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All.
    All,
    /// TCP right after an IP header, and what is marked: whatever may be a super-frame, and whatever is of the same flow.
    Tcp,
    /// Everything else.
    Rest,
}

/// Attaches the filter to a socket, instead of whatever was attached before.
pub fn attach(socket: &impl AsFd, ports: &[u16], part: Part) -> io::Result<()> {
    let program: Vec<libc::sock_filter> = direction().into_iter().chain(of(part)).chain(without(ports)).collect();
    install(socket, &program)
}

/// What is not of the part is dropped; the rest is asked what follows.
fn of(part: Part) -> Vec<libc::sock_filter> {
    let [tcp, rest] = match part {
        Part::All => return Vec::new(),
        Part::Tcp => [skip(1), end(0)],
        Part::Rest => [end(0), skip(0)],
    };
    // Jumps end at the last two.
    vec![
        load(libc::BPF_H, TYPE as u32),
        equal(MARKED.into(), 10, 0),
        equal(0x86dd, 7, 0),
        equal(0x0800, 0, 9),
        load(libc::BPF_B, NETWORK as u32),
        equal(PLAIN_IPV4.into(), 0, 7),
        load(libc::BPF_H, NETWORK as u32 + 6),
        any_bit(0x3fff, 5, 0),
        load(libc::BPF_B, NETWORK as u32 + 9),
        skip(1),
        load(libc::BPF_B, NETWORK as u32 + 6),
        equal(TCP.into(), 0, 1),
        tcp,
        rest,
    ]
}

/// Lets nothing through to a socket that only sends.
pub fn attach_deaf(socket: &impl AsFd) -> io::Result<()> {
    install(socket, &[end(0)])
}

fn install(socket: &impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the `len` instructions that `filter` points to and writes none; they outlive the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// Whether a frame passes the filter of ports and parts; without that of directions, which a pair of UNIX sockets does not have.
    fn passes_part(frame: &[u8], ports: &[u16], part: Part) -> bool {
        let (to, from) = UnixDatagram::pair().unwrap();
        install(&from, &[of(part), without(ports)].concat()).unwrap();
        from.set_nonblocking(true).unwrap();
        // What is filtered is refused to the sender.
        let _ = to.send(frame);
        from.recv(&mut [0; 2000]).is_ok_and(|length| length == frame.len())
    }

    fn passes(frame: &[u8], ports: &[u16]) -> bool {
        passes_part(frame, ports, Part::All)
    }

    fn ip4(protocol: u8, options: usize, fragment: u16, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + options];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45 + (options / 4) as u8;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        ports.iter().for_each(|port| frame.extend(port.to_be_bytes()));
        frame.resize(frame.len() + 40, 0);
        frame
    }

    fn ip6(protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![0; 14 + 40];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        (frame[14], frame[20]) = (0x60, protocol);
        ports.iter().for_each(|port| frame.extend(port.to_be_bytes()));
        frame.resize(frame.len() + 40, 0);
        frame
    }

    #[test]
    fn the_meshs_own_does_not_pass_and_everything_else_does() {
        let other = [40_000, 80];
        for ports in [&[6783][..], &[4789, 6783], &(6700..6800).rev().collect::<Vec<u16>>()[..60]] {
            for pair in [[6783, 40_000], [40_000, 6783]] {
                for protocol in [6, 17] {
                    assert!(!passes(&ip4(protocol, 0, 0, pair), ports), "{protocol} {pair:?} {ports:?}");
                    assert!(!passes(&ip4(protocol, 8, 0x4000, pair), ports), "with options and DF");
                    assert!(!passes(&ip6(protocol, pair), ports));
                    assert!(passes(&ip4(protocol, 0, 0, other), ports) && passes(&ip6(protocol, other), ports));
                }
                assert!(passes(&ip4(17, 0, 185, pair), ports), "a later fragment has no ports");
                assert!(passes(&ip4(1, 0, 0, pair), ports) && passes(&ip6(58, pair), ports), "neither has ICMP");
            }
            let mut arp = vec![0; 60];
            arp[12..14].copy_from_slice(&[8, 6]);
            assert!(passes(&arp, ports));
        }
        assert!(passes(&ip4(17, 0, 0, [4789, 4789]), &[6783]) && !passes(&ip4(17, 0, 0, [4789, 4789]), &[6783, 4789]));
        assert!(passes(&ip6(17, [1, 2]), &[]));
    }

    #[test]
    fn two_that_share_an_interface_have_each_frame_once_and_a_flow_of_tcp_whole() {
        let other = [40_000, 80];
        let mut marked = ip4(6, 0, 0, other);
        marked[12..14].copy_from_slice(&[0xff, 0xff]);
        let tcp = [ip4(6, 0, 0x4000, other), ip6(6, other), marked];
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let rest = [
            ip4(17, 0, 0, other),
            ip6(17, other),
            ip4(6, 8, 0, other),
            ip4(6, 0, 0x2000, other),
            ip4(6, 0, 185, other),
            ip6(44, other),
            arp,
        ];
        for ports in [&[][..], &[6783]] {
            for (frames, part, other) in [(&tcp[..], Part::Tcp, Part::Rest), (&rest, Part::Rest, Part::Tcp)] {
                for frame in frames {
                    assert!(passes_part(frame, ports, part) && !passes_part(frame, ports, other), "{part:?} {frame:?}");
                }
            }
        }
        assert!(!passes_part(&ip4(6, 0, 0, [6783, 80]), &[6783], Part::Tcp), "the mesh's own");
    }
}
