//! What address management says to its own kind on other peers, and its encoding: a version byte, then a body of
//! `wire::message`.
//!
//! ```text
//! Digest                      where my ring stands; to some peers now and then, and to whoever just became reachable
//! Fetch -> Part..             the whole ring, in parts of at most 256 KiB
//! Ask                         a peer's request, to whoever may propose
//! Prepare -> Promise          first half of a round
//! Accept  -> Accepted         second half; Nack: somebody is ahead. Decided: the outcome, to all
//! Need    -> Deny             space that another owner has (granted by a Shed in the ring, not by a message)
//! Evict                       an operator's `rmpeer`, from a host that is no member itself
//! Knock   -> Answered, Vacate -> Occupied     two rings that meet, see `merge`
//! ```
//! Whatever does not decode, or is longer than [`MESSAGE`], is dropped by the receiver.

use super::ring::{Life, Owner, Ring, Slot};
use super::rounds::Ballot;
use super::space::Run;
use super::steps::{Guest, Request, Step};
use crate::types::{Network, PeerName};
use crate::wire::message::{decode_body, encode_body};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Largest message, bytes.
pub const MESSAGE: usize = 256 * 1024;
/// Bytes of a ring that ride in one part.
pub(super) const PART: usize = MESSAGE - 64;
/// Most parts of a ring: 4 MiB, what `wire::message` takes.
pub(super) const PARTS_MAX: u16 = 16;
/// First byte of every message.
const VERSION: u8 = 1;

/// Where a peer's ring stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Digest {
    pub slot: Slot,
    pub ranges: Vec<Network>,
    /// Somebody waits there for a ring to be founded.
    pub needs: bool,
    /// This is an answer: do not answer it.
    pub reply: bool,
    /// Addresses in use there, for `status`.
    pub used: u64,
    pub members: u32,
}

/// What is needed of another owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Want {
    /// Any of that network.
    Net(Network),
    /// That position.
    At(u128),
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Message {
    Digest(Digest),
    Fetch,
    Full(Arc<Ring>),
    Part {
        slot: Slot,
        number: u16,
        of: u16,
        bytes: Vec<u8>,
    },
    Ask(Request),
    Prepare {
        slot: Slot,
        ballot: Ballot,
        reclaim: Vec<PeerName>,
    },
    Promise {
        slot: Slot,
        ballot: Ballot,
        life: Life,
        boot: u64,
        accepted: Option<(Ballot, Step)>,
        agrees: Vec<PeerName>,
    },
    Accept {
        slot: Slot,
        ballot: Ballot,
        step: Step,
    },
    Accepted {
        slot: Slot,
        ballot: Ballot,
        life: Life,
    },
    Nack {
        slot: Slot,
        ballot: Ballot,
        promised: Ballot,
    },
    Decided {
        slot: Slot,
        step: Step,
    },
    Need {
        want: Want,
        life: Life,
    },
    Deny {
        want: Want,
    },
    Evict {
        peers: Vec<(PeerName, u64)>,
    },
    Knock {
        into: u64,
        guest: Box<Guest>,
    },
    Answered {
        guest: u64,
        attempt: u32,
        why: String,
    },
    Vacate {
        guest: u64,
        attempt: u32,
        items: Vec<(Run, Owner)>,
    },
    Occupied {
        guest: u64,
        attempt: u32,
        position: u128,
    },
}

impl Message {
    /// As it travels.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(encode_body(self));
        out
    }

    /// Nothing for whatever is not a message of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let (version, body) = bytes.split_first()?;
        if *version != VERSION || bytes.len() > MESSAGE + 1 { None } else { decode_body(body).ok() }
    }
}
