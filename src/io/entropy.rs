//! Random numbers of the operating system.
//!
//! Owns getrandom(2). The pure layers take what is drawn here as a seed; nothing else in rnet draws random numbers.

use std::io;

/// 32 bytes for a key or a seed.
///
/// Blocks until the kernel's pool is initialised (early boot). Errors: the system call is missing or forbidden (seccomp).
pub fn seed() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("getrandom: {e}")))?;
    Ok(bytes)
}

/// A number for a run's uid or a connection.
pub fn number() -> io::Result<u64> {
    let [a, b, c, d, e, f, g, h, ..] = seed()?;
    Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        assert_ne!(seed().unwrap(), seed().unwrap());
        assert_ne!(number().unwrap(), number().unwrap());
    }
}
