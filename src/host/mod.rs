//! Changes to this machine: what a network and an attachment are made of, and how they come and go.
//!
//! Owns the names of kernel objects, the order of steps, and that a failed change leaves nothing behind. Does not own the
//! system calls (`io`) nor when a change is due (`node`). Per network there is a bridge and a capture port, per attachment's
//! interface a veth pair whose far end lies in the attachment's namespace:
//!
//! ```text
//! namespace of the attachment | namespace of the router
//!   rnet0 (MAC, addresses) ===|=== rnv<hash> --- rnb<net> --- rnt<net>  <- captured by the data path
//!                             |                          \--- rnq<net> === rnp<net>  <- where there is no TAP
//!                             |                          \--- rnx<net>, rny<net>      <- VXLAN by the kernel (IPv4, IPv6)
//! ```
//!
//! - `names`    what these are called, and which names are ours
//! - `plan`     a change as a list of steps; pure
//! - `pairs`    the captured end of a veth pair, where there is no TAP
//! - `apply`    runs the steps, undoes them in reverse
//! - `inside`   the namespace of an attachment
//! - `adopt`    what a dead router left: taken over, or swept
//! - `kernel`   the kernel's VXLAN between peers
//! - `beats`    heartbeats by it
//! - `gate`     whose VXLAN it takes in
//! - `announce` the frames that tell a network where an address is now; pure
//! - `changes`  what of this machine's changes matters
//! - `doors`    UDP ports by which VTEPs are reached
//! - `taken`    who has a UDP port that we would have
//! - `uplinks`  interfaces that are not ours, captured while they are there
//! - `events`   what is told of all this
//! - `rules`    the packet filter as text; pure
//! - `firewall` sets it, and puts it back when others flush it
//! - `guard`    what an attachment may put on its bridge, as text; pure
//! - `fence`    sets that, and puts it back when others flush it
//! - `sandbox`  `rnet run`: a program on the mesh before it begins
#![allow(clippy::disallowed_methods)] // the rim: threads, timers and the machine itself

mod able;
mod adopt;
mod announce;
mod apply;
mod beats;
mod changes;
mod doors;
mod events;
mod fence;
pub mod firewall;
mod gate;
mod guard;
mod inside;
mod kernel;
mod names;
mod pairs;
mod plan;
mod rules;
pub mod sandbox;
mod taken;
mod uplinks;

pub use adopt::Keep;
pub use apply::Host;
pub use beats::Beats;
pub use events::HostEvent;
pub use taken::mesh_port_taken;

pub use plan::{Step, plan};
