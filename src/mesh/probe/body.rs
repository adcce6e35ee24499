//! The bytes of a probe, before they are sealed.
//!
//! ```text
//! 0     flags: 1 ASK (answer at once), 2 PROVEN (you acknowledged mine within 3 s), 4 FULL (size test), 8 ARRIVED (answer to one),
//!       16 UNFINISHED (by VXLAN: frames may come with checksums left unfinished)
//! 1     what is proved: 0 the path by rnet's own framing, 1 by VXLAN
//! 2..4  size: ARRIVED: bytes of the UDP payload that arrived; in heartbeats: tests sent so far, modulo 65,536
//! 4..8  sequence, from 1; 0 in FULL and ARRIVED, which prove a size and nothing else
//! 8..12 acknowledged: newest sequence seen from the other side; 0: none yet
//! 12..16 held: microseconds from its arrival to this sending
//! 16..24 seen: bit n: sequence (acknowledged - n) arrived
//! 24..  zeros up to the tested size (FULL)
//! ```

use crate::wire::Malformed;

/// Bytes of a heartbeat.
pub const BODY_LEN: usize = 24;

/// What is proved.
pub const UDP: u8 = 0;
pub const VXLAN: u8 = 1;

pub const ASK: u8 = 1;
pub const PROVEN: u8 = 2;
pub const FULL: u8 = 4;
pub const ARRIVED: u8 = 8;
pub const UNFINISHED: u8 = 16;

/// The fixed part of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    pub flags: u8,
    pub way: u8,
    pub size: u16,
    pub sequence: u32,
    pub acknowledged: u32,
    pub held_us: u32,
    pub seen: u64,
}

impl Body {
    pub fn parse(bytes: &[u8]) -> Result<Body, Malformed> {
        let fixed: &[u8; BODY_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let [flags, way, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, h0, h1, h2, h3, seen @ ..] = *fixed;
        if way > VXLAN || flags & !(ASK | PROVEN | FULL | ARRIVED | UNFINISHED) != 0 {
            return Err(Malformed::Field);
        }
        Ok(Body {
            flags,
            way,
            size: u16::from_be_bytes([s0, s1]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledged: u32::from_be_bytes([a0, a1, a2, a3]),
            held_us: u32::from_be_bytes([h0, h1, h2, h3]),
            seen: u64::from_be_bytes(seen),
        })
    }

    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BODY_LEN);
        bytes.extend_from_slice(&[self.flags, self.way]);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.acknowledged.to_be_bytes());
        bytes.extend_from_slice(&self.held_us.to_be_bytes());
        bytes.extend_from_slice(&self.seen.to_be_bytes());
        bytes
    }
}
