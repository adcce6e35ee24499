//! rnet: a userspace virtual switch and router.
//!
//! The map. A module may use any lower layer and no sibling (`tests/layers.rs` checks it); L0 to L3 are pure: they take
//! bytes, `now` and a seed, and return values. `cargo check --lib --no-default-features` builds just these.
//!
//! ```text
//! L8  cli                  subcommands and what they print; `launch` is the composition root
//! L7  api docker           the control socket; names of containers to process ids
//! L6  run                  threads and tasks: control (owns Node), datapath, links
//! L5  host                 changes to this machine: plan (pure), apply, sandbox
//! L4  io                   a file per family of system calls; the only unsafe code
//! L3  node config          the router as one machine; the options as one valid value
//! L2  mesh plane ipam      who is where; what becomes of a frame; who may hand out which address
//! L1  wire crypto          bytes to values and back; handshake, keys, seals
//! L0  types                Mac, PeerName, NetId, Network, secrets
//! ```
//!
//! The frame's way:
//!
//! ```text
//! container - bridge - TAP > run::datapath > plane from_bridge > guard > switch > path seal > (Sink) io::udp > peer
//! peer - UDP ------------> run::datapath > plane from_net > path open > switch > (Sink) TAP, or path seal > next hop
//! ```
//!
//! Control is one task that owns `node::Node`: it feeds inputs (link bytes, probes, commands, time) and carries out
//! outputs (dial, send, change the machine). It tells the data plane by publishing an immutable `plane::fib::Fib`.

pub mod crypto;
pub mod ipam;
pub mod mesh;
pub mod node;
pub mod plane;
pub mod types;
pub mod wire;

pub mod config;

#[cfg(feature = "daemon")]
pub mod api;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod docker;
#[cfg(feature = "daemon")]
pub mod host;
#[cfg(feature = "daemon")]
pub mod io;
#[cfg(feature = "daemon")]
pub mod run;
