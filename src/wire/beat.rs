//! A probe of the VXLAN path between two peers, as a frame: what lies behind a VXLAN header with the VNI of peers
//! ([`VNI_OF_PEERS`](crate::types::VNI_OF_PEERS)).
//!
//! Owns the layout. The probe in it is a whole datagram of the path (`wire::datagram`, kind probe), sealed with the keys that the
//! path has anyway: a forged one proves nothing. The ethertype is one that IEEE 802 leaves to local experiments. Frames are never
//! shorter than Ethernet's 60 bytes, since a probe's body is not.
//!
//! ```text
//! 0..6   MAC of the receiver: its name          6..12  MAC of the sender: its name
//! 12..14 0x88b5                                 14..   datagram
//! ```

use crate::types::PeerName;
use crate::wire::frame::HEADER_LEN;

/// The ethertype (IEEE Std 802, local experimental ethertype 1).
pub const ETHER_TYPE: u16 = 0x88b5;

/// The frame that takes `datagram` from `from` to `to`.
pub fn frame(from: PeerName, to: PeerName, datagram: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_LEN + datagram.len());
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETHER_TYPE.to_be_bytes());
    frame.extend_from_slice(datagram);
    frame
}

/// The datagram in `frame`; nothing if it is no frame of this kind. Whom it is for is not looked at: the seal tells.
pub fn datagram(frame: &[u8]) -> Option<&[u8]> {
    let (header, datagram) = frame.split_first_chunk::<HEADER_LEN>()?;
    (header.last_chunk() == Some(&ETHER_TYPE.to_be_bytes())).then_some(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_these_bytes_and_is_read_again() {
        let (from, to): (PeerName, PeerName) =
            ("02:00:00:00:00:01".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap());
        let bytes = frame(from, to, b"probe");
        assert_eq!(bytes, [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5][..], b"probe"].concat());
        assert_eq!(datagram(&bytes), Some(&b"probe"[..]));
    }

    #[test]
    fn other_frames_are_refused() {
        assert_eq!(datagram(&[0; 13]), None);
        assert_eq!(datagram(&[0; 60]), None);
    }
}
