//! Segmentation as slowly and plainly as it can be said, with the headers and checksums of etherparse: nothing is shared with
//! what is tested. Also builds the packets of the tests.

use crate::wire::virtio::{Gso, Offload};
use etherparse::*;

#[derive(Debug, Clone, PartialEq)]
pub enum Ip {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    Tcp(TcpHeader),
    Udp(UdpHeader),
}

/// A TCP or UDP packet. Lengths and checksums are made when it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    pub ethernet: Ethernet2Header,
    pub ip: Ip,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

pub fn ipv4(flow: u8) -> Ip {
    let mut ip = Ipv4Header::new(0, 64, IpNumber(0), [10, 1, 0, flow], [10, 2, 0, 9]).unwrap();
    ip.identification = 0xfffe;
    ip.dont_fragment = true;
    Ip::V4(ip)
}

pub fn ipv6(flow: u8) -> Ip {
    let mut ip = Ipv6Header { hop_limit: 64, source: [0xfd; 16], destination: [0xfc; 16], ..Default::default() };
    ip.source[15] = flow;
    Ip::V6(ip)
}

/// With time stamps, as most are, and a sequence number that soon begins anew.
pub fn tcp() -> Transport {
    let mut tcp = TcpHeader::new(40_001, 443, u32::MAX - 2000, 512);
    tcp.ack = true;
    tcp.acknowledgment_number = 0x0102_0304;
    tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    Transport::Tcp(tcp)
}

pub fn udp() -> Transport {
    Transport::Udp(UdpHeader { source_port: 40_001, destination_port: 443, ..Default::default() })
}

/// Bytes that differ from place to place.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 37 % 253) as u8).collect()
}

impl Packet {
    pub fn new(ip: Ip, transport: Transport, payload: Vec<u8>) -> Packet {
        let ether_type = if matches!(ip, Ip::V4(_)) { EtherType::IPV4 } else { EtherType::IPV6 };
        let ethernet = Ethernet2Header { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2], ether_type };
        Packet { ethernet, ip, transport, payload }
    }

    pub fn parse(frame: &[u8]) -> Packet {
        let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let Some(LinkHeader::Ethernet2(ethernet)) = parsed.link else { panic!("no Ethernet") };
        let ip = match parsed.net {
            Some(NetHeaders::Ipv4(ip, _)) => Ip::V4(ip),
            Some(NetHeaders::Ipv6(ip, _)) => Ip::V6(ip),
            other => panic!("no IP: {other:?}"),
        };
        let transport = match parsed.transport {
            Some(TransportHeader::Tcp(tcp)) => Transport::Tcp(tcp),
            Some(TransportHeader::Udp(udp)) => Transport::Udp(udp),
            other => panic!("no transport: {other:?}"),
        };
        Packet { ethernet, ip, transport, payload: parsed.payload.slice().to_vec() }
    }

    pub fn tcp(&mut self) -> &mut TcpHeader {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp,
            Transport::Udp(_) => panic!("UDP"),
        }
    }

    pub fn ipv4(&mut self) -> &mut Ipv4Header {
        match &mut self.ip {
            Ip::V4(ip) => ip,
            Ip::V6(_) => panic!("IPv6"),
        }
    }

    /// The whole frame with lengths and checksums as they should be.
    pub fn bytes(&self) -> Vec<u8> {
        let Packet { ethernet, mut ip, mut transport, payload } = self.clone();
        let (header, protocol) = match &transport {
            Transport::Tcp(tcp) => (tcp.header_len(), ip_number::TCP),
            Transport::Udp(_) => (8, ip_number::UDP),
        };
        let length = header + payload.len();
        match &mut ip {
            Ip::V4(ip) => {
                ip.protocol = protocol;
                ip.set_payload_len(length).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
            }
            Ip::V6(ip) => {
                ip.next_header = protocol;
                ip.set_payload_length(length).unwrap();
            }
        }
        match (&mut transport, &ip) {
            (Transport::Tcp(tcp), Ip::V4(ip)) => tcp.checksum = tcp.calc_checksum_ipv4(ip, &payload).unwrap(),
            (Transport::Tcp(tcp), Ip::V6(ip)) => tcp.checksum = tcp.calc_checksum_ipv6(ip, &payload).unwrap(),
            (Transport::Udp(udp), ip) => {
                udp.length = length.try_into().unwrap();
                udp.checksum = match ip {
                    Ip::V4(ip) => udp.calc_checksum_ipv4(ip, &payload).unwrap(),
                    Ip::V6(ip) => udp.calc_checksum_ipv6(ip, &payload).unwrap(),
                };
            }
        }
        let mut frame = ethernet.to_bytes().to_vec();
        match ip {
            Ip::V4(ip) => frame.extend(ip.to_bytes()),
            Ip::V6(ip) => frame.extend(ip.to_bytes()),
        }
        match transport {
            Transport::Tcp(tcp) => frame.extend(tcp.to_bytes()),
            Transport::Udp(udp) => frame.extend(udp.to_bytes()),
        }
        frame.extend(payload);
        frame
    }

    /// As [`Packet::bytes`] with a partial checksum.
    pub fn partial(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        let (addresses, transport) = match self.ip {
            Ip::V4(_) => (&frame[26..34], 34),
            Ip::V6(_) => (&frame[22..54], 54),
        };
        let (protocol, field) = match self.transport {
            Transport::Tcp(_) => (6, 16),
            Transport::Udp(_) => (17, 6),
        };
        let mut sum = (frame.len() - transport + protocol) as u64;
        for word in addresses.chunks(2) {
            sum += u64::from(word[0]) * 256 + u64::from(word[1]);
        }
        while sum > 0xffff {
            sum = sum % 0x1_0000 + sum / 0x1_0000;
        }
        frame[transport + field..transport + field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        frame
    }
}

/// Cuts a super-frame: the segments as frames with complete checksums.
pub fn segment(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let whole = Packet::parse(frame);
    let chunks: Vec<&[u8]> = if whole.payload.is_empty() { vec![&[]] } else { whole.payload.chunks(size).collect() };
    let mut segments = Vec::new();
    for (n, chunk) in chunks.iter().enumerate() {
        let mut segment = Packet { payload: chunk.to_vec(), ..whole.clone() };
        if let Ip::V4(ip) = &mut segment.ip {
            ip.identification = (usize::from(ip.identification) + n) as u16;
        }
        if let Transport::Tcp(tcp) = &mut segment.transport {
            tcp.sequence_number = tcp.sequence_number.wrapping_add((n * size) as u32);
            tcp.cwr = tcp.cwr && n == 0;
            tcp.fin = tcp.fin && n == chunks.len() - 1;
            tcp.psh = tcp.psh && n == chunks.len() - 1;
        }
        segments.push(segment.bytes());
    }
    segments
}

/// What a receiver sees of a delivered frame once all that was left to do is done.
pub fn finished(offload: &Offload, frame: &[u8]) -> Vec<Vec<u8>> {
    match offload {
        Offload { gso: Some(Gso { size, .. }), checksum: Some(_) } => segment(frame, usize::from(*size)),
        Offload { gso: None, checksum: Some(_) } => vec![Packet::parse(frame).bytes()],
        Offload { gso: None, checksum: None } => vec![frame.to_vec()],
        Offload { gso: Some(_), checksum: None } => panic!("a super-frame has a partial checksum"),
    }
}

/// Without what has no meaning: the identification of a packet that must not be fragmented (RFC 6864).
pub fn meaning(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() >= 34 && frame[12..14] == [8, 0] && frame[20] & 0x40 != 0 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}
