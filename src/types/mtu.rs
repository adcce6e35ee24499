//! How wide the interfaces of attachments are.

/// What the MTU of attachments follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtu {
    /// The narrowest path of the mesh.
    Auto,
    /// Nothing: it is this, bytes.
    Fixed(u16),
}
