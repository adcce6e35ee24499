//! The control plane's parts: who is where, and how to get there.
//!
//! `replica` holds one value per peer and merges what others tell; `peers` (the topology) and `claims` (who has which
//! address) are such values; `gossip` plans what to tell which neighbour; `routes` computes next hops and flood trees
//! from the topology; `short` settles the 16-bit numbers that stand for peers in datagrams. `link`, `dialer`, `probe`
//! and `choice` are machines for one TCP link, all targets, one datagram path, and what carries its frames; `candidates` finds
//! out at which addresses its peer answers, `loss` how much of what is sent arrives, `cost` makes one slow number of what a path is worth; `loops` finds segments that are reached twice; `pace` spaces
//! what would otherwise be done for each change. All pure:
//! `node` owns and drives them.

pub mod candidates;
pub mod choice;
pub mod claims;
pub mod cost;
pub mod dialer;
pub mod gossip;
pub mod link;
pub mod loops;
pub mod loss;
pub mod pace;
pub mod peers;
pub mod probe;
pub mod replica;
pub mod routes;
pub mod short;
