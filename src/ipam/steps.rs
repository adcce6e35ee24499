//! What a step of the ring may hold. Values only: `ring` and `merge` say what they do, `rounds` how they are decided.

use super::ring::{Life, Member, Outcome, Owner};
use super::space::Run;
use crate::types::{Network, PeerName};
use serde::{Deserialize, Serialize};

/// Most operations in a request.
pub const OPS_MAX: usize = 64;
/// Most requests and acts in a batch; the rest goes into the next one.
pub const BATCH_MAX: usize = 512;

/// A wish of a peer about its own part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Count this start of mine in. Always the first of its request.
    Join,
    /// Addresses of that network from the pool: `need` are waited for, `spare` (in all) are ahead of need.
    Want { network: Network, need: u32, spare: u32 },
    /// That very address, if it is in the pool.
    Take { position: u128 },
    /// I no longer hand out these: to another owner, or to the pool.
    Shed { runs: Vec<Run>, to: Option<Owner> },
    /// Everything of mine to the pool; I am gone (`reset`).
    Leave,
    /// What I really use, and I hand out nothing more while the ring moves.
    Report { attempt: u32, runs: Vec<Run> },
}

/// Operations of one peer, applied together and at most once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Whose.
    pub from: PeerName,
    /// In which life.
    pub life: Life,
    /// At which start.
    pub boot: u64,
    /// The how many-th since that start, from 1.
    pub seq: u64,
    /// At most 64.
    pub ops: Vec<Op>,
}

/// A ring as it asks another to take it in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Which.
    pub ring: u64,
    /// Number of its attempt.
    pub attempt: u32,
    /// Its members.
    pub members: Vec<(PeerName, Member)>,
    /// What is in use, by owner.
    pub holdings: Vec<(Owner, Vec<Run>)>,
    /// Its subnets.
    pub subnets: Vec<Network>,
    /// Rings that it had taken in itself.
    pub guests: Vec<(u64, Outcome)>,
}

/// Something about others that a proposer puts in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Act {
    /// Unreachable for too long in the eyes of a majority: it counts no longer, its blocks are set aside.
    Reclaim { peer: PeerName, life: Life, boot: u64 },
    /// An operator says that this start of the peer is dead: its blocks go to the pool.
    Remove { peer: PeerName, life: Life, boot: u64 },
    /// This ring asks ring `into` to take it in.
    Move { into: u64, attempt: u32 },
    /// A member does not report: all of its blocks count as used.
    Absent { attempt: u32, peer: PeerName },
    /// The attempt is over, this ring goes on.
    Thaw { attempt: u32 },
    /// Takes a ring in.
    Absorb(Box<Guest>),
    /// Refuses that attempt of a ring for good; space kept for `owners` goes to the pool.
    Refuse { ring: u64, attempt: u32, owners: Vec<Owner> },
}

/// What one decision holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    /// About others.
    pub acts: Vec<Act>,
    /// Of members and those who want to be.
    pub requests: Vec<Request>,
}

/// The first decision of all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founding {
    /// The new ring's random id, not 0.
    pub ring: u64,
    /// The whole space.
    pub ranges: Vec<Network>,
    /// Who was there.
    pub members: Vec<(PeerName, Life, u64)>,
}

/// What is decided: the founding, or a change to a ring that stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// The first one.
    Found(Founding),
    /// Any other.
    Batch(Batch),
}
