//! The rim: a file per family of system calls, and the only unsafe code of rnet.
//!
//! Owns file descriptors, sockets, namespaces, processes and files. Decides nothing: what to change on this machine is
//! `host`'s, what becomes of a frame is `plane`'s, what runs on which thread is `run`'s. Errors are `std::io::Error`
//! or say in one line what was attempted on what; whether they are fatal is the caller's decision.
//!
//! ```text
//! clock alarm entropy  time and random numbers, as the pure layers want them
//! capture tap raw pcap a network's capture port: a frame and what is left to do on it, in or out, never blocking
//! sieve                what the kernel keeps from a captured interface
//! turns                several queues of one thread, served in turns
//! steering marking     programs of ours in the kernel: which queue of a TAP a frame waits in; super-frames for libpcap
//! bpf                  the assembler and loader of both
//! udp egress ingress   the mesh's datagrams: GSO out, GRO in      tcp   the listener of links
//! door                 UDP ports by which VTEPs are reached, and what the way to them takes
//! lost                 what the kernel dropped before we saw it
//! netlink watch        links and addresses; their changes         packet ethtool   what netlink cannot do
//! vxlan fdb            VXLAN devices and bridge ports; which MAC is behind which of them     holder   who has a UDP port
//! firewall routes own  nftables: changed, listed, watched; where this machine sends what; its addresses
//! netns pidfd process  namespaces, processes seen from outside, and the fork of `rnet run`
//! background           the fork of the daemon, and how its start went
//! store lock           files that survive a restart; one router per run directory
//! ```
#![allow(clippy::disallowed_methods)] // this is where clocks, sockets, threads, files and random numbers belong

pub mod alarm;
pub mod background;
pub mod bpf;
pub mod capture;
pub mod clock;
pub mod door;
pub mod egress;
pub mod entropy;
pub mod ethtool;
pub mod fdb;
pub mod firewall;
pub mod holder;
pub mod ingress;
pub mod lock;
pub mod lost;
pub mod marking;
pub mod netlink;
pub mod netns;
pub mod own;
pub mod packet;
pub mod pcap;
pub mod pidfd;
pub mod process;
pub mod raw;
pub mod routes;
pub mod sieve;
pub mod sources;
pub mod steering;
pub mod store;
pub mod tap;
pub mod tcp;
pub mod turns;
pub mod udp;
pub mod vxlan;
pub mod watch;
