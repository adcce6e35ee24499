//! The VXLAN header (RFC 7348, section 5): for tunnel ends that are not rnet, and for the kernel's device.
//!
//! Owns the eight bytes. Which neighbour speaks VXLAN, and on which UDP port, is decided in the mesh; the frame behind
//! the header is `wire::frame`'s. What the RFC reserves is sent as zero and not looked at on receipt, as it demands: the
//! kernel and hardware set extension bits there (group policy, generic protocol).
//!
//! ```text
//! 0      flags: bit 3 (0x08) "the network id is valid", must be set
//! 1..4   reserved
//! 4..7   network id (VNI); 0 is legal in the RFC and refused here, where it means "no network"
//! 7      reserved
//! 8..    the Ethernet frame
//! ```

use super::Malformed;
use crate::types::NetId;

/// Bytes of the header.
pub const VXLAN_LEN: usize = 8;

const VALID_ID: u8 = 0x08;

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

/// Writes the header that goes in front of a frame of `network`.
#[inline]
pub fn emit(network: NetId, into: &mut [u8; VXLAN_LEN]) {
    let [_, n0, n1, n2] = network.value().to_be_bytes();
    *into = [VALID_ID, 0, 0, 0, n0, n1, n2, 0];
}
