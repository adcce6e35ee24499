//! The captured end of a veth pair of our own, where there is no TAP: opened by AF_PACKET or libpcap.
//!
//! Owns how long the frames are that a capture must have room for: libpcap has slots of a size that is fixed when it is opened, so a
//! network that gets a larger MTU is captured anew.

use crate::io::capture::{Capture, CaptureKind, Options};
use crate::io::marking::Marking;
use crate::io::{pcap, raw};
use crate::wire::frame::HEADER_LEN;

/// Two VLAN tags of an attachment that is not guarded.
const TAGS: usize = 8;

/// Captures on `name`, which is up and has this MTU; the other end of the pair is `bridged`.
pub(super) fn open(options: Options, (name, bridged): (&str, &str), mtu: u16) -> Result<Vec<Capture>, String> {
    let Options { kind, queues, offload } = options;
    if kind == CaptureKind::Packet {
        let all = raw::Raw::open(name, raw::Wish { queues, offload, deaf_to: &[] });
        let all = all.map_err(|e| format!("capturing on {name}: {e}"))?;
        return Ok(all.into_iter().map(Capture::Raw).collect());
    }
    let marking = if offload { mark(name, bridged) } else { None };
    let wish = pcap::Wish { longest: longest(mtu), queues, offload, deaf_to: &[], marking };
    Ok(pcap::Pcap::open(name, wish)?.into_iter().map(Capture::Pcap).collect())
}

/// Has super-frames of TCP come whole. Where the kernel does not let us it cuts them, and the log says so; `rnet status` does too.
fn mark(name: &str, bridged: &str) -> Option<Marking> {
    let marking = Marking::between(bridged, name).inspect_err(|why| {
        tracing::warn!(
            "capturing on {name}: TCP comes cut, which is slower: it needs Linux 6.6, CAP_BPF and CAP_NET_ADMIN: {why}"
        );
    });
    marking.ok()
}

/// Bytes of the longest frame that these take.
pub(super) fn room(captures: &[Capture]) -> usize {
    match captures.first() {
        Some(Capture::Pcap(pcap)) => pcap.longest(),
        Some(Capture::Tap(_) | Capture::Raw(_)) => usize::MAX,
        None => 0,
    }
}

/// Whether that is enough for a device of this MTU.
pub(super) fn is_enough(room: usize, mtu: u16) -> bool {
    room >= longest(mtu)
}

fn longest(mtu: u16) -> usize {
    HEADER_LEN + TAGS + usize::from(mtu)
}
