//! One neighbour's datagram path. (Replaced by the plane's own file.)
#[derive(Debug)]
pub struct Path;
