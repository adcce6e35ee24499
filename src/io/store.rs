//! Files that survive a restart: the identity and the state.
//!
//! Owns the data directory (0700) and the form of its files (0600). A file is replaced atomically: written beside, synced,
//! renamed. It begins with one line that says what it is, followed by its JSON:
//!
//! ```text
//! rnet-state 1 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! {"version":1,"targets":["host2"],"attachments":[]}
//!      |     |   SHA-256 of everything after this line, hexadecimal
//!      |     version of this envelope
//!      name of the file
//! ```
//!
//! Invariant: nothing that was stored is ever lost in silence. A file that is damaged is renamed to `NAME.damaged-N`, N being
//! the first free number, and told to the caller; one of a newer rnet is left alone and refused.

use crate::types::StaticKey;
use atomic_write_file::AtomicWriteFile;
use atomic_write_file::unix::OpenOptionsExt as _;
use aws_lc_rs::digest;
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Version of the envelope.
const ENVELOPE: u32 = 1;
/// Largest file that is read, bytes.
const FILE_MAX: u64 = 64 << 20;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was written by a later version of rnet.
    #[error("{}: written by a newer rnet (format {found}, this one reads {ENVELOPE}): use that one, or move the file away", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its envelope's version.
        found: u32,
    },
    /// The system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded<T> {
    /// No such file yet.
    Absent,
    /// This.
    Found(T),
    /// Something that is not what was stored; it now lies at `aside`.
    Damaged {
        /// Where it was moved to.
        aside: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A data directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Makes the directory (0700) if it is missing.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Io { path: dir.to_path_buf(), source })?;
        Ok(Store { dir: dir.to_path_buf() })
    }

    /// Where the file `name` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the file `name`, stored by [`Store::save`].
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Loaded<T>, StoreError> {
        self.load_with(name, |body| serde_json::from_slice(body).map_err(|e| format!("it does not parse: {e}")))
    }

    /// Replaces the file `name`. When this returns, it is on the disk.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let body = serde_json::to_vec(value).map_err(|e| self.failed(name, e.into()))?;
        self.write(name, &body)
    }

    /// This peer's private key, from the file `identity`.
    pub fn load_identity(&self) -> Result<Loaded<StaticKey>, StoreError> {
        self.load_with("identity", |body| {
            let text = Zeroizing::new(String::from_utf8_lossy(body).into_owned());
            let hex = text.trim().trim_matches('"');
            unhex(hex).map(|key| StaticKey(*key)).ok_or_else(|| "it holds no key of 64 hexadecimal digits".to_string())
        })
    }

    /// Stores this peer's private key.
    pub fn save_identity(&self, key: &StaticKey) -> Result<(), StoreError> {
        let body = Zeroizing::new(format!("\"{}\"\n", *hex(&key.0)));
        self.write("identity", body.as_bytes())
    }

    fn failed(&self, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path(name), source }
    }

    fn write(&self, name: &str, body: &[u8]) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            let mut options = AtomicWriteFile::options();
            options.mode(0o600).preserve_mode(false).preserve_owner(false);
            let mut file = options.open(self.path(name))?;
            writeln!(file, "rnet-{name} {ENVELOPE} {}", *hex(digest::digest(&digest::SHA256, body).as_ref()))?;
            file.write_all(body)?;
            file.commit()
        };
        write().map_err(|e| self.failed(name, e))
    }

    fn load_with<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Loaded<T>, StoreError> {
        let mut bytes = Zeroizing::new(Vec::new());
        match fs::File::open(self.path(name)) {
            Ok(file) => file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|e| self.failed(name, e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Absent),
            Err(e) => return Err(self.failed(name, e)),
        };
        let parsed = match open_envelope(name, &bytes) {
            Ok(body) => parse(body),
            Err(Envelope::Newer(found)) => return Err(StoreError::Newer { path: self.path(name), found }),
            Err(Envelope::Damaged(why)) => Err(why.to_string()),
        };
        match parsed {
            Ok(value) => Ok(Loaded::Found(value)),
            Err(why) => Ok(Loaded::Damaged { aside: self.set_aside(name).map_err(|e| self.failed(name, e))?, why }),
        }
    }

    /// Moves the file to the first free `NAME.damaged-N`.
    fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        for number in 1..=9999 {
            let aside = self.path(&format!("{name}.damaged-{number}"));
            // A placeholder of our own claims the name, so that no earlier damaged file is written over.
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside) {
                Ok(_) => return fs::rename(self.path(name), &aside).map(|()| aside),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("9999 damaged files lie beside it already"))
    }
}

enum Envelope {
    Newer(u32),
    Damaged(&'static str),
}

fn open_envelope<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], Envelope> {
    let damaged = Envelope::Damaged("its first line is not rnet's");
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Err(damaged) };
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let Ok(head) = std::str::from_utf8(head) else { return Err(damaged) };
    let words: Vec<&str> = head.split(' ').collect();
    let &[what, version, ref rest @ ..] = words.as_slice() else { return Err(damaged) };
    let Ok(version) = version.parse::<u32>() else { return Err(damaged) };
    if what.strip_prefix("rnet-") != Some(name) {
        return Err(damaged);
    }
    if version > ENVELOPE {
        return Err(Envelope::Newer(version));
    }
    let sum = hex(digest::digest(&digest::SHA256, body).as_ref());
    if version == ENVELOPE && rest == [sum.as_str()] {
        Ok(body)
    } else {
        Err(Envelope::Damaged("its checksum does not match"))
    }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    use std::fmt::Write as _;
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        (dir, store)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn loads_what_it_saved_and_only_the_owner_can_read_it() {
        let (_dir, store) = store();
        assert_eq!(store.load::<Vec<u32>>("state").unwrap(), Loaded::Absent);
        store.save("state", &vec![1u32, 2]).unwrap();
        store.save("state", &vec![1u32, 2, 3]).unwrap();
        assert_eq!(store.load("state").unwrap(), Loaded::Found(vec![1u32, 2, 3]));
        assert_eq!((mode(&store.path("state")), mode(&store.dir)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn an_identity_survives_and_is_never_replaced_by_a_damaged_one() {
        let (_dir, store) = store();
        let key = StaticKey(std::array::from_fn(|i| i as u8 * 7));
        store.save_identity(&key).unwrap();
        assert_eq!(store.load_identity().unwrap(), Loaded::Found(key));
        assert_eq!(mode(&store.path("identity")), 0o600);
        let mut bytes = fs::read(store.path("identity")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(store.path("identity"), &bytes).unwrap();
        let Loaded::Damaged { aside, why } = store.load_identity().unwrap() else { panic!("damage was not seen") };
        assert_eq!(fs::read(aside).unwrap(), bytes);
        assert!(why.contains("checksum"), "{why}");
        assert_eq!(store.load_identity().unwrap(), Loaded::Absent);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_dir, store) = store();
        store.save("state", &vec![1u32, 2, 3]).unwrap();
        let good = fs::read(store.path("state")).unwrap();
        for at in 0..good.len() {
            let cut = good[..at].to_vec();
            let mut flipped = good.clone();
            flipped[at] ^= 0x01;
            for bad in [cut, flipped] {
                let seen = open_envelope("state", &bad);
                assert!(seen.is_err(), "at {at}: {:?}", String::from_utf8_lossy(&bad));
            }
        }
    }

    #[test]
    fn damaged_files_do_not_write_over_each_other() {
        let (_dir, store) = store();
        for number in 1..=3 {
            fs::write(store.path("state"), format!("rubbish {number}")).unwrap();
            let Loaded::Damaged { aside, .. } = store.load::<u32>("state").unwrap() else { panic!() };
            assert_eq!(aside, store.path(&format!("state.damaged-{number}")));
        }
        assert_eq!(fs::read_to_string(store.path("state.damaged-1")).unwrap(), "rubbish 1");
    }

    #[test]
    fn a_newer_file_is_left_alone() {
        let (_dir, store) = store();
        fs::write(store.path("state"), "rnet-state 2 whatever\nnew").unwrap();
        assert!(matches!(store.load::<u32>("state"), Err(StoreError::Newer { found: 2, .. })));
        assert!(store.path("state").exists());
        assert!(
            matches!(open_envelope("identity", b"rnet-state 1 x\n"), Err(Envelope::Damaged(_))),
            "one file for another"
        );
    }

    #[test]
    fn content_of_another_shape_is_damage() {
        let (_dir, store) = store();
        store.save("state", &"text").unwrap();
        assert!(matches!(store.load::<u32>("state").unwrap(), Loaded::Damaged { .. }));
    }
}
