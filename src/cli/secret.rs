//! Passwords that were given where others can see them: taken, then wiped from where they stood.
//!
//! Arguments and environment of a process lie in its own memory and are shown to others by /proc/PID/cmdline and
//! /proc/PID/environ, and the environment is inherited by whatever it starts. Both regions are found in
//! /proc/self/stat (proc_pid_stat(5), fields 48 to 51) and overwritten through /proc/self/mem, which needs no unsafe code.
//! Each overwritten byte becomes 0: the variable stays, empty, and an empty password is no password.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use zeroize::Zeroizing;

/// A text that is wiped when it is dropped.
pub type Text = Zeroizing<String>;

const VARIABLE: &str = "RNET_PASSWORD";
/// Arguments and environment together have no more than this (a quarter of the usual stack limit, execve(2)).
const REGION_MAX: u64 = 6 << 20;

/// Where a region of this process's memory begins and ends.
type Region = (u64, u64);

/// The value of `RNET_PASSWORD`, wiped from the environment. None if it is not set or empty.
pub fn take_from_environment() -> Option<Text> {
    let value = Zeroizing::new(std::env::var(VARIABLE).ok().filter(|value| !value.is_empty())?);
    // Where /proc cannot be written the variable stays for this process's own user, who set it.
    let _ = regions().and_then(|(_, environment)| wipe(environment, value.as_bytes()));
    Some(value)
}

/// Wipes `password` from the arguments of this process.
pub fn wipe_from_arguments(password: &str) -> io::Result<()> {
    let (arguments, _) = regions()?;
    wipe(arguments, password.as_bytes())
}

/// The regions of arguments and environment.
fn regions() -> io::Result<(Region, Region)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    parse_regions(&stat).ok_or_else(|| io::Error::other("/proc/self/stat has no addresses"))
}

fn parse_regions(stat: &str) -> Option<(Region, Region)> {
    // The second field is the program's name in parentheses and may hold anything; the rest are numbers.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields =
        rest.split_whitespace().skip(45).map(|field| field.parse::<u64>().ok().filter(|address| *address > 0));
    let mut next = || fields.next().flatten();
    Some(((next()?, next()?), (next()?, next()?)))
}

fn wipe((from, to): Region, secret: &[u8]) -> io::Result<()> {
    let length = to.checked_sub(from).filter(|length| *length <= REGION_MAX).and_then(|l| usize::try_from(l).ok());
    let length = length.ok_or_else(|| io::Error::other("the region makes no sense"))?;
    let memory: File = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    memory.read_exact_at(&mut bytes, from)?;
    let zeros = vec![0; secret.len()];
    for at in occurrences(&bytes, secret) {
        memory.write_all_at(&zeros, from + u64::try_from(at).map_err(io::Error::other)?)?;
    }
    Ok(())
}

/// Where `secret` stands as a whole value: at the end of an argument or variable, after its start or a `=`.
fn occurrences(bytes: &[u8], secret: &[u8]) -> Vec<usize> {
    if secret.is_empty() {
        return Vec::new();
    }
    let whole = |at: usize| {
        let before = at.checked_sub(1).and_then(|i| bytes.get(i)).is_none_or(|byte| matches!(byte, 0 | b'='));
        before && bytes.get(at + secret.len()).is_none_or(|byte| *byte == 0)
    };
    let found = bytes.windows(secret.len()).enumerate().filter(|(_, window)| *window == secret);
    found.map(|(at, _)| at).filter(|at| whole(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_regions_of_a_process_with_an_odd_name() {
        let numbers: Vec<String> = (3..=52).map(|field| (field * 10).to_string()).collect();
        let stat = format!("4711 (a) b (c)) {}", numbers.join(" "));
        assert_eq!(parse_regions(&stat), Some(((480, 490), (500, 510))));
        assert_eq!(parse_regions("1 (x) S 1 2"), None);
    }

    #[test]
    fn finds_a_secret_as_a_whole_value_only() {
        let bytes = b"rnet\0launch\0--password=ab\0ab\0abc\0cab\0X=ab";
        let found: Vec<usize> = occurrences(bytes, b"ab");
        assert_eq!(found, [23, 26, 39]);
        assert!(occurrences(bytes, b"").is_empty() && occurrences(b"", b"ab").is_empty());
    }

    #[test]
    fn own_arguments_can_be_found_and_read() {
        let ((from, to), environment) = regions().unwrap();
        assert!(from < to && environment.0 <= environment.1);
        assert!(wipe((from, to), b"nothing that stands there").is_ok());
    }
}
