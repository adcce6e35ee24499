//! The VXLAN header (RFC 7348, section 5): for tunnel ends that are not rnet, and for the kernel's device.
//!
//! Owns the eight bytes. Which neighbour speaks VXLAN, and on which UDP port, is decided in the mesh; the frame behind
//! the header is `wire::frame`'s. What the RFC reserves is sent as zero and not looked at on receipt, as it demands: the
//! kernel and hardware set extension bits there (group policy, generic protocol). One extension is ours too, between peers
//! that said that they take it: remote checksum offload (draft-herbert-vxlan-rco, as Linux has it), by which a transport checksum
//! is left unfinished, since that of the outer UDP covers the same bytes. The bit is for those who do not know it: Linux drops
//! the frame. Who knows it sees it by the checksum itself (`plane::decap`).
//!
//! ```text
//! 0      flags: bit 3 (0x08) "the network id is valid", must be set
//! 1..4   reserved; of byte 1 bit 5 (0x20) "the checksum is unfinished"
//! 4..7   network id (VNI); 0 is legal in the RFC and refused here, where it means "no network"; 0xff_ffff is no network
//!        either, by it peers prove the path between them (`wire::beat`)
//! 7      reserved; of an unfinished checksum: 0x80 for UDP, else TCP, and half of the bytes of frame before the transport header
//! 8..    the Ethernet frame
//! ```

use super::Malformed;
use super::virtio::Partial;
use crate::types::{NetId, VNI_OF_PEERS};

/// Bytes of the header.
pub const VXLAN_LEN: usize = 8;

const VALID_ID: u8 = 0x08;
const UNFINISHED: u8 = 0x20;
const OF_UDP: u8 = 0x80;

/// From the transport header to the checksum, bytes.
const UDP_CHECKSUM: u16 = 6;
const TCP_CHECKSUM: u16 = 16;

/// Reads the header of a datagram: the network, and the frame that follows.
#[inline]
pub fn parse(datagram: &[u8]) -> Result<(NetId, &[u8]), Malformed> {
    let Some((&[flags, _, _, _, n0, n1, n2, _], frame)) = datagram.split_first_chunk::<VXLAN_LEN>() else {
        return Err(Malformed::Truncated);
    };
    if flags & VALID_ID == 0 {
        return Err(Malformed::Field);
    }
    let network = NetId::new(u32::from_be_bytes([0, n0, n1, n2])).ok_or(Malformed::Field)?;
    Ok((network, frame))
}

/// The frame behind a header with the VNI of peers, if that is what `datagram` begins with.
#[inline]
pub fn of_peers(datagram: &[u8]) -> Option<&[u8]> {
    let (&[flags, _, _, _, n0, n1, n2, _], frame) = datagram.split_first_chunk::<VXLAN_LEN>()?;
    (flags & VALID_ID != 0 && u32::from_be_bytes([0, n0, n1, n2]) == VNI_OF_PEERS).then_some(frame)
}

/// Writes the header with the VNI of peers.
pub fn emit_of_peers(into: &mut [u8; VXLAN_LEN]) {
    let [_, n0, n1, n2] = VNI_OF_PEERS.to_be_bytes();
    *into = [VALID_ID, 0, 0, 0, n0, n1, n2, 0];
}

/// Writes the header that goes in front of a frame of `network`.
#[inline]
pub fn emit(network: NetId, into: &mut [u8; VXLAN_LEN]) {
    let [_, n0, n1, n2] = network.value().to_be_bytes();
    *into = [VALID_ID, 0, 0, 0, n0, n1, n2, 0];
}

/// Says in a header that the checksum of its frame is unfinished; false, and as it was, if there is no saying it.
#[inline]
pub fn mark_unfinished(header: &mut [u8; VXLAN_LEN], partial: Partial) -> bool {
    let of_udp = match partial.offset {
        UDP_CHECKSUM => OF_UDP,
        TCP_CHECKSUM => 0,
        _ => return false,
    };
    match u8::try_from(partial.start / 2) {
        Ok(half) if partial.start.is_multiple_of(2) && half < OF_UDP => {
            let [_, extensions, .., last] = header;
            (*extensions, *last) = (*extensions | UNFINISHED, of_udp | half);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: [u8; 8] = [0x08, 0, 0, 0, 0x83, 0x12, 0xa4, 0];

    #[test]
    fn header_is_these_bytes() {
        let network = NetId::new(0x83_12a4).unwrap();
        let mut bytes = [0xff; VXLAN_LEN];
        emit(network, &mut bytes);
        assert_eq!(bytes, HEADER);
        assert_eq!(parse(&[&HEADER[..], b"frame"].concat()), Ok((network, &b"frame"[..])));
    }

    #[test]
    fn probes_of_peers_are_on_no_network() {
        let mut header = [0xff; VXLAN_LEN];
        emit_of_peers(&mut header);
        assert_eq!(header, [0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
        let datagram = [&header[..], b"frame"].concat();
        assert_eq!((of_peers(&datagram), parse(&datagram)), (Some(&b"frame"[..]), Err(Malformed::Field)));
        assert_eq!(of_peers(&[&HEADER[..], b"frame"].concat()), None);
        assert_eq!((of_peers(&header[..7]), of_peers(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0])), (None, None));
    }

    #[test]
    fn reserved_bits_are_not_looked_at() {
        assert!(parse(&[0xff, 1, 2, 3, 0x83, 0x12, 0xa4, 9]).is_ok());
    }

    #[test]
    fn unfinished_checksums_are_told_as_linux_tells_them() {
        let mut header = HEADER;
        assert!(mark_unfinished(&mut header, Partial { start: 34, offset: 16 }));
        assert_eq!(header, [0x08, 0x20, 0, 0, 0x83, 0x12, 0xa4, 17]);
        assert!(mark_unfinished(&mut header, Partial { start: 54, offset: 6 }));
        assert_eq!(header, [0x08, 0x20, 0, 0, 0x83, 0x12, 0xa4, 0x80 | 27]);
        assert_eq!(parse(&header).unwrap().0, NetId::new(0x83_12a4).unwrap(), "the network is the same");
    }

    #[test]
    fn what_the_header_has_no_room_for_is_not_said() {
        for (start, offset) in [(35, 16), (256, 16), (34, 8), (u16::MAX, 6)] {
            let mut header = HEADER;
            assert!(!mark_unfinished(&mut header, Partial { start, offset }), "{start} {offset}");
            assert_eq!(header, HEADER);
        }
        let mut header = HEADER;
        assert!(mark_unfinished(&mut header, Partial { start: 254, offset: 6 }));
        assert_eq!(header, [0x08, 0x20, 0, 0, 0x83, 0x12, 0xa4, 0xff]);
    }

    #[test]
    fn header_without_a_network_is_refused() {
        assert_eq!(parse(&[0xf7, 0, 0, 0, 0x83, 0x12, 0xa4, 0]), Err(Malformed::Field));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Field));
        for length in 0..VXLAN_LEN {
            assert_eq!(parse(&HEADER[..length]), Err(Malformed::Truncated));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((network, frame)) = parse(&bytes) {
                let mut again = [0; VXLAN_LEN];
                emit(network, &mut again);
                prop_assert_eq!(parse(&again).map(|(network, _)| network), Ok(network));
                prop_assert_eq!(frame, &bytes[VXLAN_LEN..]);
            }
        }
    }
}
