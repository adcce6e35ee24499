//! What attachments say to each other: ARP, echo requests and replies over IPv4, and plain broadcasts. The last eight bytes of
//! each frame are a token by which the world recognises it.

use rnet::types::Mac;
use std::net::Ipv4Addr;

/// Bytes of padding between the packet and the token, so that no frame is shorter than Ethernet's least.
const LEAST: usize = 60;
/// Local experimental (IEEE 802): claims no address.
const BARE: u16 = 0x88b5;

/// A frame as an attachment reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    WhoHas { mac: Mac, ip: Ipv4Addr, target: Ipv4Addr },
    IAm { mac: Mac, ip: Ipv4Addr },
    Echo { mac: Mac, from: Ipv4Addr, to: Ipv4Addr, reply: bool, id: u64 },
    TooBig { mtu: u16 },
    Bare,
}

pub fn arp(src: (Mac, Ipv4Addr), dst: Mac, target: (Mac, Ipv4Addr), reply: bool, token: u64) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, if reply { 2 } else { 1 }];
    body.extend(src.0.0);
    body.extend(src.1.octets());
    body.extend(target.0.0);
    body.extend(target.1.octets());
    frame(src.0, dst, 0x0806, &body, token)
}

pub fn echo(src: (Mac, Ipv4Addr), dst: (Mac, Ipv4Addr), reply: Option<u64>, fill: usize, token: u64) -> Vec<u8> {
    let (kind, id) = match reply {
        Some(id) => (0, id),
        None => (8, token),
    };
    let mut icmp = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    icmp.extend(id.to_be_bytes());
    icmp.resize(icmp.len() + fill, 0xa5);
    // The token is the packet's own end.
    let length = u16::try_from(20 + icmp.len() + 8).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 1, 0, 0]);
    ip.extend(src.1.octets());
    ip.extend(dst.1.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(icmp);
    frame(src.0, dst.0, 0x0800, &ip, token)
}

/// A frame without any address but those of Ethernet.
pub fn bare(src: Mac, dst: Mac, token: u64) -> Vec<u8> {
    filled(src, dst, 0, token)
}

/// The same with this many bytes more.
pub fn filled(src: Mac, dst: Mac, fill: usize, token: u64) -> Vec<u8> {
    frame(src, dst, BARE, &vec![0x5a; fill], token)
}

pub fn frame(src: Mac, dst: Mac, kind: u16, body: &[u8], token: u64) -> Vec<u8> {
    let mut frame = Vec::from(dst.0);
    frame.extend(src.0);
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    if frame.len() + 8 < LEAST {
        frame.resize(LEAST - 8, 0);
    }
    frame.extend(token.to_be_bytes());
    frame
}

pub fn token(frame: &[u8]) -> Option<u64> {
    frame.last_chunk().copied().map(u64::from_be_bytes)
}

/// An answer or an announcement of the router's own: ARP, shorter than any frame of an attachment.
pub fn is_of_rnet(frame: &[u8]) -> bool {
    frame.len() == 42 && frame[12..14] == [8, 6]
}

pub fn dst(frame: &[u8]) -> Mac {
    Mac(*frame.first_chunk().unwrap())
}

pub fn read(frame: &[u8]) -> Said {
    let mac = |at: usize| Mac(frame[at..at + 6].try_into().unwrap());
    let ip = |at: usize| Ipv4Addr::from_octets(frame[at..at + 4].try_into().unwrap());
    match &frame[12..14] {
        [8, 6] if frame[21] == 1 => Said::WhoHas { mac: mac(22), ip: ip(28), target: ip(38) },
        [8, 6] => Said::IAm { mac: mac(22), ip: ip(28) },
        [8, 0] if frame[23] == 1 && frame[34] == 3 => Said::TooBig { mtu: u16::from_be_bytes([frame[40], frame[41]]) },
        [8, 0] if frame[23] == 1 => {
            let id = u64::from_be_bytes(frame[42..50].try_into().unwrap());
            Said::Echo { mac: mac(6), from: ip(26), to: ip(30), reply: frame[34] == 0, id }
        }
        _ => Said::Bare,
    }
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
