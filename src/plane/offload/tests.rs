//! Facts and laws of this room, against `naive`: an implementation of its own.

mod coalescing;
mod forging;
mod laws;
mod layouts;
mod naive;
mod odds;
mod segmenting;
mod sums;
