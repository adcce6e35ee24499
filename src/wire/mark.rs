//! The mark on a super-frame of TCP: what a capture that has no virtio header cannot tell.
//!
//! Owns where the kernel's program (`io::marking`) writes it into a frame, and how it is taken out again. It is in places whose content
//! follows from the rest of the frame:
//!
//! ```text
//! ether type          0xffff, which no frame has (IANA keeps it reserved): the version of IP says what it was
//! checksum of TCP     bytes of payload in each segment but the last; the kernel leaves this checksum to us anyhow
//! ```
//!
//! Marked are frames of TCP right after an IPv4 header without options or an IPv6 header, and nothing else. That nobody on a network
//! can send a frame that looks so is the program's business too: it lets none of the reserved type through.

use super::Malformed;
use super::virtio::{Gso, GsoKind, Offload, Partial};

/// The ether type of a marked frame.
pub const MARKED: u16 = 0xffff;
/// Where the ether type is, bytes from the start of the frame.
pub const TYPE: usize = 12;
/// Where the IP header is.
pub const NETWORK: usize = 14;
/// Where the TCP header is: behind IPv4, behind IPv6.
pub const TRANSPORT: (u16, u16) = (34, 54);
/// From there to the checksum.
pub const CHECKSUM: u16 = 16;
/// IPv4, five words of header.
pub const PLAIN_IPV4: u8 = 0x45;
/// The protocol's number.
pub const TCP: u8 = 6;
/// TCP's flag that only the first segment may have.
const CWR: u8 = 0x80;

/// Takes the mark out of a frame, if it has one: it is as it left its sender, and this is left to do on it. `Field` and
/// `Truncated` for a frame that the kernel would not have marked.
pub fn remove(frame: &mut [u8]) -> Result<Offload, Malformed> {
    let ether_type = match frame.get(TYPE..=NETWORK) {
        Some(&[0xff, 0xff, PLAIN_IPV4]) => 0x0800u16,
        Some(&[0xff, 0xff, 0x60..=0x6f]) => 0x86dd,
        Some(&[0xff, 0xff, _]) => return Err(Malformed::Field),
        _ => return Ok(Offload::NONE),
    };
    let (kind, start, protocol, addresses) = match ether_type {
        0x0800 => (GsoKind::Tcp4, TRANSPORT.0, NETWORK + 9, NETWORK + 12),
        _ => (GsoKind::Tcp6, TRANSPORT.1, NETWORK + 6, NETWORK + 8),
    };
    let transport = usize::from(start);
    let at = transport + usize::from(CHECKSUM);
    let checksum = frame.get(at..at + 2).and_then(|bytes| bytes.first_chunk()).copied();
    let (Some(size), Some(&words), Some(&flags)) =
        (checksum.map(u16::from_be_bytes), frame.get(transport + 12), frame.get(transport + 13))
    else {
        return Err(Malformed::Truncated);
    };
    let headers = start + u16::from(words >> 4) * 4;
    if size == 0 || frame.get(protocol) != Some(&TCP) || frame.len() <= headers.into() || headers < start + 20 {
        return Err(Malformed::Field);
    }
    let pseudo = pseudo(frame.get(addresses..transport).unwrap_or_default(), frame.len() - transport);
    for (at, value) in [(TYPE, ether_type), (at, pseudo)] {
        if let Some(place) = frame.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }
    Ok(Offload {
        checksum: Some(Partial { start, offset: CHECKSUM }),
        gso: Some(Gso { kind, ecn: flags & CWR != 0, size, headers }),
    })
}

/// The sum of the pseudo-header, not complemented (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo(addresses: &[u8], length: usize) -> u16 {
    let words = addresses.chunks_exact(2).filter_map(|word| word.first_chunk()).map(|word| u16::from_be_bytes(*word));
    let length = [length >> 16, length & 0xffff].into_iter().sum::<usize>() as u32;
    let sum = words.map(u32::from).sum::<u32>() + u32::from(TCP) + length;
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marked(version: u8, size: u16, options: usize, payload: usize, flags: u8) -> (Vec<u8>, Vec<u8>) {
        let (ether_type, header, transport): ([u8; 2], usize, u16) =
            if version == 4 { ([8, 0], 20, TRANSPORT.0) } else { ([0x86, 0xdd], 40, TRANSPORT.1) };
        let mut frame: Vec<u8> = (0..14 + header + 20 + options + payload).map(|n| (n * 7) as u8).collect();
        frame[12..14].copy_from_slice(&ether_type);
        frame[14] = if version == 4 { 0x45 } else { 0x6a };
        frame[if version == 4 { 23 } else { 20 }] = 6;
        let at = usize::from(transport);
        frame[at + 12] = ((5 + options / 4) << 4) as u8;
        frame[at + 13] = flags;
        let mut marked = frame.clone();
        marked[12..14].copy_from_slice(&[0xff, 0xff]);
        marked[at + 16..at + 18].copy_from_slice(&size.to_be_bytes());
        (frame, marked)
    }

    /// Adds words one by one, as RFC 1071 says it first.
    fn naive_pseudo(frame: &[u8], version: u8) -> u16 {
        let (addresses, transport) = if version == 4 { (26..34, 34) } else { (22..54, 54) };
        let mut bytes = frame[addresses].to_vec();
        bytes.extend(((frame.len() - transport) as u32).to_be_bytes());
        bytes.extend([0, 0, 0, 6]);
        bytes.chunks(2).fold(0u16, |sum, word| {
            let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([word[0], word[1]]));
            sum + u16::from(carry)
        })
    }

    proptest! {
        #[test]
        fn a_marked_frame_is_as_it_left_its_sender_but_for_the_sum_of_its_pseudo_header(
            four: bool, size in 1u16.., options in 0usize..=10, payload in 1usize..3000, flags: u8,
        ) {
            let version = if four { 4 } else { 6 };
            let (mut frame, mut marked) = marked(version, size, options * 4, payload, flags);
            let start = if four { 34 } else { 54 };
            let offload = remove(&mut marked).unwrap();
            let gso = Gso {
                kind: if four { GsoKind::Tcp4 } else { GsoKind::Tcp6 },
                ecn: flags & 0x80 != 0,
                size,
                headers: start + 20 + options as u16 * 4,
            };
            prop_assert_eq!(offload, Offload { checksum: Some(Partial { start, offset: 16 }), gso: Some(gso) });
            let sum = naive_pseudo(&frame, version);
            let at = usize::from(start) + 16;
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(marked, frame);
        }

        #[test]
        fn what_is_not_marked_stays_as_it_is(mut frame in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(frame.get(12..14) != Some(&[0xff, 0xff]));
            let before = frame.clone();
            prop_assert_eq!(remove(&mut frame), Ok(Offload::NONE));
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn any_marked_bytes_are_refused_or_understood(mut frame in prop::collection::vec(any::<u8>(), 14..200), first in 0usize..3) {
            frame[12..14].copy_from_slice(&[0xff, 0xff]);
            if let (Some(version), Some(byte)) = (frame.get_mut(14), [0x45, 0x60].get(first)) {
                *version = *byte;
            }
            if let Ok(offload) = remove(&mut frame) {
                prop_assert!(frame.len() == 14 || offload.gso.is_some());
            }
        }
    }

    #[test]
    fn what_the_kernel_would_not_have_marked_is_refused() {
        let with = |change: fn(&mut Vec<u8>)| {
            let (_, mut frame) = marked(4, 1400, 12, 3000, 0x10);
            change(&mut frame);
            remove(&mut frame).map(|_| ())
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|frame| frame[14] = 0x46), Err(Malformed::Field), "options of IPv4");
        assert_eq!(with(|frame| frame[23] = 17), Err(Malformed::Field), "UDP");
        assert_eq!(with(|frame| frame[50..52].fill(0)), Err(Malformed::Field), "segments of no bytes");
        assert_eq!(with(|frame| frame[46] = 0x40), Err(Malformed::Field), "a header that is too short");
        assert_eq!(with(|frame| frame.truncate(66)), Err(Malformed::Field), "headers only");
        assert_eq!(with(|frame| frame.truncate(40)), Err(Malformed::Truncated));
    }
}
