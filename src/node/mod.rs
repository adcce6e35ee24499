//! The router: joins the pure parts into one machine without I/O.

pub mod border;
pub mod command;
pub mod rekey;
pub mod status;
