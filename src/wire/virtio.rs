//! The virtio-net header: what a frame leaves to whoever carries it on.
//!
//! Owns the 10 bytes that a TAP with IFF_VNET_HDR puts in front of each frame, in the byte order of the machine
//! (virtio 1.2, section 5.1.6, and linux/virtio_net.h). A kernel that leaves work to us says here which: a checksum that
//! holds only the sum of its pseudo-header, and a super-frame that is still to be cut. What is done about it is
//! `plane::offload`'s. Whether the numbers fit the frame is checked there too; here only what no frame can make right.
//!
//! ```text
//! 0     flags: 1 the checksum is to be completed, 2 it is complete and was verified
//! 1     kind: 0 none, 1 TCP over IPv4, 3 UDP fragments (never asked for), 4 TCP over IPv6, 5 UDP datagrams; 128 TCP ECN
//! 2..4  bytes of all headers: a hint, not to be believed
//! 4..6  bytes of payload in each segment but the last
//! 6..8  where the checksummed part begins
//! 8..10 where in it the checksum is
//! ```

use super::Malformed;

/// Bytes of the header; the kernel's default (TUNGETVNETHDRSZ).
pub const VIRTIO_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const VERIFIED: u8 = 2;
const KIND_NONE: u8 = 0;
const KIND_TCP4: u8 = 1;
const KIND_TCP6: u8 = 4;
const KIND_UDP: u8 = 5;
const ECN: u8 = 0x80;

/// What is left to do on a frame. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is still to be completed.
    pub checksum: Option<Partial>,
    /// The frame is a super-frame: many segments under one header.
    pub gso: Option<Gso>,
}

/// A checksum that holds only the sum of its pseudo-header, not complemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Bytes of the frame before the part that is summed: where the transport header is.
    pub start: u16,
    /// Bytes from there to the checksum: 16 in TCP, 6 in UDP.
    pub offset: u16,
}

/// How a super-frame is to be cut (generic segmentation offload).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// What it carries.
    pub kind: GsoKind,
    /// TCP with ECN: CWR is for the first segment only.
    pub ecn: bool,
    /// Bytes of payload in each segment but the last, which may be shorter; not 0.
    pub size: u16,
    /// Bytes of all headers: a hint for the receiver's memory.
    pub headers: u16,
}

/// What a super-frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams over either.
    Udp,
}

impl Offload {
    /// Nothing is left to do: the frame is as it is on a wire.
    pub const NONE: Offload = Offload { checksum: None, gso: None };

    /// Reads the header. `Kind` for one that we never asked for, `Field` for segments of no bytes.
    #[inline]
    pub fn parse(bytes: &[u8; VIRTIO_LEN]) -> Result<Offload, Malformed> {
        let [flags, kind, h0, h1, z0, z1, s0, s1, o0, o1] = *bytes;
        if flags & !(NEEDS_CHECKSUM | VERIFIED) != 0 {
            return Err(Malformed::Field);
        }
        let partial = Partial { start: u16::from_ne_bytes([s0, s1]), offset: u16::from_ne_bytes([o0, o1]) };
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(partial);
        let ecn = kind & ECN != 0;
        let kind = match kind & !ECN {
            KIND_NONE if !ecn => return Ok(Offload { checksum, gso: None }),
            KIND_TCP4 => GsoKind::Tcp4,
            KIND_TCP6 => GsoKind::Tcp6,
            KIND_UDP if !ecn => GsoKind::Udp,
            _ => return Err(Malformed::Kind),
        };
        let gso = Gso { kind, ecn, size: u16::from_ne_bytes([z0, z1]), headers: u16::from_ne_bytes([h0, h1]) };
        if gso.size == 0 {
            return Err(Malformed::Field);
        }
        Ok(Offload { checksum, gso: Some(gso) })
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self) -> [u8; VIRTIO_LEN] {
        let flags = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        let partial = self.checksum.unwrap_or(Partial { start: 0, offset: 0 });
        let (kind, size, headers) = match self.gso {
            None => (KIND_NONE, 0, 0),
            Some(gso) => {
                let kind = match gso.kind {
                    GsoKind::Tcp4 => KIND_TCP4,
                    GsoKind::Tcp6 => KIND_TCP6,
                    GsoKind::Udp => KIND_UDP,
                };
                (if gso.ecn { kind | ECN } else { kind }, gso.size, gso.headers)
            }
        };
        let [h0, h1] = headers.to_ne_bytes();
        let [z0, z1] = size.to_ne_bytes();
        let [s0, s1] = partial.start.to_ne_bytes();
        let [o0, o1] = partial.offset.to_ne_bytes();
        [flags, kind, h0, h1, z0, z1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_frame_has_a_header_of_zeros() {
        assert_eq!(Offload::NONE.emit(), [0; VIRTIO_LEN]);
        assert_eq!(Offload::parse(&[0; VIRTIO_LEN]), Ok(Offload::NONE));
        assert_eq!(Offload::parse(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Offload::NONE), "verified by the kernel");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_super_frame_of_tcp_has_these_bytes() {
        let offload = Offload {
            checksum: Some(Partial { start: 34, offset: 16 }),
            gso: Some(Gso { kind: GsoKind::Tcp4, ecn: true, size: 1400, headers: 66 }),
        };
        let bytes = [1, 0x81, 66, 0, 0x78, 5, 34, 0, 16, 0];
        assert_eq!(offload.emit(), bytes);
        assert_eq!(Offload::parse(&bytes), Ok(offload));
    }

    #[test]
    fn what_no_frame_can_make_right_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = [1, 1, 66, 0, 0x78, 5, 34, 0, 16, 0];
            bytes[at] = value;
            Offload::parse(&bytes).map(|_| ())
        };
        assert_eq!(with(0, 4), Err(Malformed::Field), "a flag nobody knows");
        assert_eq!(with(1, 3), Err(Malformed::Kind), "UDP fragments");
        assert_eq!(with(1, 0x85), Err(Malformed::Kind), "UDP with ECN");
        assert_eq!(with(1, 0x80), Err(Malformed::Kind), "nothing with ECN");
        assert_eq!(Offload::parse(&[1, 1, 66, 0, 0, 0, 34, 0, 16, 0]), Err(Malformed::Field), "segments of no bytes");
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(
            checksum in prop::option::of((any::<u16>(), any::<u16>())),
            gso in prop::option::of((0usize..3, any::<bool>(), 1u16.., any::<u16>())),
        ) {
            let offload = Offload {
                checksum: checksum.map(|(start, offset)| Partial { start, offset }),
                gso: gso.map(|(kind, ecn, size, headers)| {
                    let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind];
                    Gso { kind, ecn: ecn && kind != GsoKind::Udp, size, headers }
                }),
            };
            prop_assert_eq!(Offload::parse(&offload.emit()), Ok(offload));
        }

        #[test]
        fn any_bytes_are_refused_or_understood(bytes: [u8; VIRTIO_LEN]) {
            if let Ok(offload) = Offload::parse(&bytes) {
                prop_assert_eq!(Offload::parse(&offload.emit()), Ok(offload));
            }
        }
    }
}
