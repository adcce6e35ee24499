//! Beacons: small frames that each captured interface sends, by which a segment that is reached twice is found.
//!
//! Owns the 64 bytes. Who sends one and when, and what follows when one is heard, is `mesh::loops`'s; who may have made it is told
//! by the tag, which `crypto::tag` makes and checks. To a group that no bridge keeps to itself, of an ether type for local
//! experiments (IEEE 802), so that every switch between floods it and nobody else takes it in.
//!
//! ```text
//! 0    group 03:72:6e:65:74:01       28  its port there
//! 6    the sender's name             32  its run (uid)
//! 12   0x88b5                        40  number: each is larger than the one before
//! 14   "rnlb", version 1             48  tag over bytes 14 to 48
//! 19   network id                    64  end; what follows is padding
//! 22   the peer that sends it
//! ```

use super::Malformed;
use crate::types::{Mac, NetId, PeerName, Uid};

/// Bytes of the whole frame.
pub const BEACON_LEN: usize = 64;
/// Bytes behind the Ethernet header.
pub const BODY_LEN: usize = BEACON_LEN - 14;
/// Bytes of the tag at its end.
pub const TAG_LEN: usize = 16;
/// IEEE 802, local experimental ether type 1.
pub const ETHER_TYPE: u16 = 0x88b5;
/// Whom it is for: a group of our own.
pub const GROUP: Mac = Mac([3, 0x72, 0x6e, 0x65, 0x74, 1]);

const MAGIC: [u8; 4] = *b"rnlb";
const VERSION: u8 = 1;

/// What a beacon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// The network that its port is on.
    pub network: NetId,
    /// Who sends it.
    pub peer: PeerName,
    /// The number of the port there.
    pub port: u32,
    /// The run of that peer.
    pub run: Uid,
    /// Counts the beacons of the port.
    pub number: u64,
}

/// Whether these bytes begin a frame that is a beacon, by address and type. Cheap, and never wrong about a beacon.
#[inline]
pub fn is_beacon(frame: &[u8]) -> bool {
    frame.get(..6) == Some(&GROUP.0) && frame.get(12..14) == Some(&ETHER_TYPE.to_be_bytes())
}

impl Beacon {
    /// The whole frame but for its tag, which is over what comes behind the Ethernet header.
    pub fn emit(&self, tag: impl FnOnce(&[u8]) -> [u8; TAG_LEN]) -> [u8; BEACON_LEN] {
        let [_, n0, n1, n2] = self.network.value().to_be_bytes();
        let mut signed = [0; BODY_LEN - TAG_LEN];
        let parts: [&[u8]; 7] = [
            &MAGIC,
            &[VERSION],
            &[n0, n1, n2],
            &self.peer.0.0,
            &self.port.to_be_bytes(),
            &self.run.0.to_be_bytes(),
            &self.number.to_be_bytes(),
        ];
        fill(&mut signed, &parts);
        let mut frame = [0; BEACON_LEN];
        fill(&mut frame, &[&GROUP.0, &self.peer.0.0, &ETHER_TYPE.to_be_bytes(), &signed, &tag(&signed)]);
        frame
    }

    /// Reads what is behind the Ethernet header: the beacon, the bytes that are tagged, and the tag.
    pub fn parse(body: &[u8]) -> Result<(Beacon, &[u8], &[u8; TAG_LEN]), Malformed> {
        let (signed, rest) = body.split_at_checked(BODY_LEN - TAG_LEN).ok_or(Malformed::Truncated)?;
        let tag = rest.first_chunk().ok_or(Malformed::Truncated)?;
        let (magic, rest) = take::<4>(signed)?;
        let ([version], rest) = take::<1>(rest)?;
        let ([n0, n1, n2], rest) = take::<3>(rest)?;
        let (peer, rest) = take::<6>(rest)?;
        let (port, rest) = take::<4>(rest)?;
        let (run, rest) = take::<8>(rest)?;
        let (number, _) = take::<8>(rest)?;
        if magic != MAGIC {
            return Err(Malformed::Kind);
        }
        if version != VERSION {
            return Err(Malformed::Version);
        }
        let network = NetId::new(u32::from_be_bytes([0, n0, n1, n2])).ok_or(Malformed::Field)?;
        let beacon = Beacon {
            network,
            peer: PeerName(Mac(peer)),
            port: u32::from_be_bytes(port),
            run: Uid(u64::from_be_bytes(run)),
            number: u64::from_be_bytes(number),
        };
        Ok((beacon, signed, tag))
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), Malformed> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(Malformed::Truncated)
}

fn fill(into: &mut [u8], parts: &[&[u8]]) {
    into.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beacon() -> Beacon {
        let network = NetId::new(0x83_12a4).unwrap();
        Beacon { network, peer: PeerName(Mac([2, 1, 2, 3, 4, 5])), port: 7, run: Uid(0x1122_3344), number: 9 }
    }

    #[test]
    fn a_beacon_is_these_bytes() {
        let frame = beacon().emit(|_| [0xcc; 16]);
        assert_eq!(frame[..14], [3, 0x72, 0x6e, 0x65, 0x74, 1, 2, 1, 2, 3, 4, 5, 0x88, 0xb5]);
        assert_eq!(frame[14..32], *b"rnlb\x01\x83\x12\xa4\x02\x01\x02\x03\x04\x05\0\0\0\x07");
        assert_eq!(frame[32..48], *b"\0\0\0\0\x11\x22\x33\x44\0\0\0\0\0\0\0\x09");
        assert_eq!(frame[48..], [0xcc; 16]);
        assert!(is_beacon(&frame) && !is_beacon(&frame[..13]) && !is_beacon(&[0; 64]));
    }

    #[test]
    fn padding_is_not_looked_at_and_what_is_cut_is_refused() {
        let frame = beacon().emit(|_| [1; 16]);
        let long = [&frame[14..], &[0xff; 9]].concat();
        assert_eq!(Beacon::parse(&long).unwrap().0, beacon());
        for length in 0..BODY_LEN {
            assert_eq!(Beacon::parse(&frame[14..14 + length]), Err(Malformed::Truncated));
        }
        let with = |at: usize| {
            let mut body = frame[14..].to_vec();
            body[at] ^= 0xff;
            Beacon::parse(&body).map(|_| ())
        };
        assert_eq!([with(0), with(4)], [Err(Malformed::Kind), Err(Malformed::Version)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((beacon, signed, tag)) = Beacon::parse(&bytes) {
                let again = beacon.emit(|_| *tag);
                prop_assert_eq!(&again[14..48], signed);
            }
        }

        #[test]
        fn reads_what_it_wrote(network in 1u32..0x100_0000, peer: [u8; 6], port: u32, run: u64, number: u64, tag: [u8; 16]) {
            let network = NetId::new(network).unwrap();
            let beacon = Beacon { network, peer: PeerName(Mac(peer)), port, run: Uid(run), number };
            let frame = beacon.emit(|_| tag);
            let (read, _, read_tag) = Beacon::parse(&frame[14..]).unwrap();
            prop_assert_eq!((read, read_tag), (beacon, &tag));
        }
    }
}
