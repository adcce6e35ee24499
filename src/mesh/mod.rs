//! The control plane: who is where.

pub mod dialer;
pub mod link;
pub mod probe;
