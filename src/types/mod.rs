//! The vocabulary of rnet. Parsing, `Display` and serde of these words live here and nowhere else.
//!
//! Peer: a router. Target: an address to dial. Link: the TCP relation between two peers. Path: the
//! datagram relation beside it. Network: one isolated Ethernet segment, named by its CIDR, carried
//! as a 24-bit network id. Attachment: a namespace's interface on a network. VTEP: a tunnel end that is not rnet.

mod address;
mod elsewhere;
mod framing;
mod instant;
mod interface;
mod interface_filter;
mod mac;
mod mtu;
mod network;
mod peer;
mod port;
mod refusal;
mod secret;
mod target;
mod vtep;

pub use address::{AddressRequest, HostAddress, parse_requests};
pub use elsewhere::objection;
pub use framing::{Engine, Framing};
pub use instant::Instant;
pub use interface::InterfaceName;
pub use interface_filter::InterfaceFilter;
pub use mac::Mac;
pub use mtu::Mtu;
pub use network::{NetId, Network, VNI_OF_PEERS};
pub use peer::{Nickname, PeerName, PublicKey, ShortId, Uid};
pub use port::{PortMap, Transport};
pub use refusal::{Refusal, harmless};
pub use secret::{Password, Psk, StaticKey};
pub use target::Target;
pub use vtep::{VXLAN_PORT, VtepAddress};

/// The longest control message, in bytes: what a link assembles at most for a peer that proved who it is.
pub const MESSAGE_MAX: usize = 4 << 20;

/// Why a text or a value is not one of the words above. Says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct Invalid {
    /// The rejected text, shortened to 64 characters.
    pub given: String,
    /// What would have been accepted, with an example.
    pub expected: &'static str,
}

impl Invalid {
    /// Rejects `given`, naming what was `expected`.
    pub fn new(given: impl AsRef<str>, expected: &'static str) -> Invalid {
        Invalid { given: given.as_ref().chars().take(64).collect(), expected }
    }
}
