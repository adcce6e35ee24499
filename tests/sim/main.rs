//! The daemon's twin: the real `Node` and the real `Plane` of many routers in one process, over a virtual clock, a seeded
//! virtual network and machines that answer as the real ones do. Nothing sleeps, and one seed gives one run.
//!
//! The model speaks of hosts, who can reach whom, attachments and frames; it knows nothing of links, routes or
//! gossip. `ping` puts Ethernet frames into an attachment's interface and looks where they come out.
//!
//! ```text
//! world     time, the queue of events                                   wires   TCP connections and datagrams underneath
//! story     what a story can do and ask
//! machine   a host: its process, its bridges, its attachments           frames  what attachments say to each other
//! stories   mesh, failures, refusals, isolation, chaos, addresses, widths, framings, loops, reach, many, quality
//! ```
//!
//! Checked on every frame of every story: it comes out unchanged, on the network that it was sent on, and at no host twice
//! while nothing changes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod addresses;
mod chaos;
mod failures;
mod frames;
mod framings;
mod isolation;
mod loops;
mod machine;
mod many;
mod mesh;
mod quality;
mod reach;
mod refusals;
mod story;
mod widths;
mod wires;
mod world;
