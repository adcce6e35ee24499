//! A UDP socket that a data path thread reads, and what it dropped.

use crate::io::lost;
use crate::io::udp::UdpSocket;
use std::sync::Arc;

/// See the head of this file.
pub(super) struct Intake {
    pub socket: Arc<UdpSocket>,
    /// Datagrams that the kernel had no room for so far.
    drops: u32,
}

impl Intake {
    pub fn new(socket: Arc<UdpSocket>) -> Intake {
        let drops = lost::of_socket(&*socket).unwrap_or(0);
        Intake { socket, drops }
    }

    /// Datagrams that were dropped since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        let drops = lost::of_socket(&*self.socket).unwrap_or(self.drops);
        let new = drops.wrapping_sub(self.drops);
        self.drops = drops;
        new.into()
    }
}
