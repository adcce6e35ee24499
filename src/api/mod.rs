//! The control socket: how command line, plugins and other programs ask the router.
//!
//! HTTP/1.1 with JSON over `<run-dir>/rnet.sock`, owner only (0600).
//!
//! ```text
//! GET  /status     200 Status                  the whole view; every output renders this one
//! POST /command    200 Reply, 409 Refused      body: one Command
//! ```
//!
//! `http` serves it, `client` asks it, `report` renders `node::status::Status` as text and JSON. Decisions are the
//! node's: a request is handed to the control task and its answer handed back.

#![allow(clippy::disallowed_methods)] // the rim: sockets and files

pub mod client;
pub mod http;
pub mod report;

/// Name of the control socket in the run directory.
pub const SOCKET: &str = "rnet.sock";
/// Largest body of a request, bytes: a command with a few thousand targets fits.
pub const REQUEST_MAX: usize = 1 << 20;
/// Largest answer that a client reads, bytes: the status of a mesh of thousands of peers.
pub const ANSWER_MAX: usize = 256 << 20;
