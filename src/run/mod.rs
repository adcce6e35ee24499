//! The running router: threads and tasks around the pure parts.
//!
//! ```text
//! main thread      control (tokio, one thread): owns Node, links, timers, answers; tasks of `links`, `machine`, the API
//! rnet-data        datapath: one plain thread, a capture per network and one UDP socket
//! rnet-store       writes state files, so that a slow disk stops nobody
//! ```
//!
//! Nothing in here decides: control handles one input, then carries out outputs until `Wait`. It wakes for inputs and
//! for the node's deadline, for nothing else.

#![allow(clippy::disallowed_methods)] // the rim: clocks, sockets, threads, files

mod desk;

pub use desk::{Desk, Question};
