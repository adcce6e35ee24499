//! The packet filter of the kernel: changed through the program `nft`, watched and listed through netlink.
//!
//! Owns how texts get into nftables (one process, one transaction) and how its changes are heard: a netlink socket that is
//! a member of NFNLGRP_NFTABLES, so that a quiet machine costs nothing. What the texts say is `host::rules`'s.
//!
//! ```text
//! netlink message   length u32, type u16, flags u16, sequence u32, port u32      all in the machine's byte order
//!   nfgenmsg        family u8, version u8, resource u16
//!   attributes      length u16, type u16, value, padded to 4 bytes: type 1 is the table's name in all that we read,
//!                   and type 3 a chain's own name                  (linux/netfilter/nf_tables.h)
//! ```

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::process::Command;

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
/// NFT_MSG_NEWCHAIN and NFT_MSG_GETCHAIN.
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
/// NFNLGRP_NFTABLES is 7, as a bit.
const GROUP: u32 = 1 << 6;
/// NFTA_CHAIN_NAME; NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are all 1.
const TABLE_NAME: u16 = 1;
const CHAIN_NAME: u16 = 3;
const HEADER: usize = 16;
/// How long `nft` may take: it waits for others that change the rules.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a text through `nft`, as one transaction. The error is one line.
pub async fn change(text: &str) -> Result<(), String> {
    run(&["-f", "-"], text).await.map(drop)
}

/// What `nft list ...` prints; the words are those after `list`.
pub async fn list(words: &[&str]) -> Result<String, String> {
    run(&[&["-a", "list"], words].concat(), "").await
}

async fn run(arguments: &[&str], input: &str) -> Result<String, String> {
    run_program("nft", arguments, input).await
}

/// Runs a program of the system, and gives what it prints. The error is one line.
pub async fn run_program(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let failed = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound if program == "nft" => "the program nft is missing: install nftables".to_string(),
        io::ErrorKind::NotFound => format!("the program {program} is missing"),
        _ => format!("{program}: {why}"),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended early says why by itself.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let waited = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = waited.map_err(|_| format!("{program} does not end"))?.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it failed and says nothing");
    Err(format!("{program}: {line}"))
}

/// A chain of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// NFPROTO_INET 1, NFPROTO_IPV4 2, NFPROTO_IPV6 10, ...
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// All chains of the calling thread's network namespace. Does not start a program: some microseconds.
///
/// Errors: the kernel has no nftables; EPERM.
pub fn chains() -> io::Result<Vec<Chain>> {
    let socket = open(0, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    let dump = libc::NLM_F_REQUEST as u16 | libc::NLM_F_DUMP as u16;
    let mut request = Vec::with_capacity(HEADER + 4);
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&(SUBSYSTEM << 8 | GET_CHAIN).to_ne_bytes());
    request.extend_from_slice(&dump.to_ne_bytes());
    request.extend_from_slice(&[0; 8 + 4]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in Messages(buffer.get(..length).unwrap_or_default()) {
            match message.kind {
                DONE => return Ok(all),
                ERROR => return Err(message.error()),
                kind if kind == SUBSYSTEM << 8 | NEW_CHAIN => {
                    let text = |kind: u16| message.text(kind).unwrap_or_default().to_string();
                    all.push(Chain { family: message.family(), table: text(TABLE_NAME), name: text(CHAIN_NAME) });
                }
                _ => {}
            }
        }
    }
}

fn open(groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Hears of changes.
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Watches the network namespace of the calling thread. Must be called within a runtime with I/O.
    pub fn open() -> io::Result<Watch> {
        let socket = open(GROUP, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        // SAFETY: `OwnedFd` owns its descriptor, which stays open and the same until it is dropped after the registration.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Watch { socket: registered.map_err(io::Error::from)?, buffer: vec![0; 64 << 10] })
    }

    /// Waits until something changed in a table of one of these names, or so much that it is not known where.
    pub async fn changed(&mut self, tables: &[&str]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let received =
                ready.try_io(|socket| recv(socket.as_raw_fd(), buffer, MsgFlags::empty()).map_err(io::Error::from));
            match received {
                Ok(Ok(length)) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    if Messages(bytes).any(|message| message.text(TABLE_NAME).is_some_and(|t| tables.contains(&t))) {
                        return Ok(());
                    }
                }
                Ok(Err(why)) if why.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Ok(Err(why)) if why.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(why)) => return Err(why),
                // Nothing there after all.
                Err(_) => {}
            }
        }
    }
}

/// NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Netlink messages one after the other; ends at the first that is cut short.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;
    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let kind = u16_at(self.0, 4)?;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    }
}

impl<'a> Message<'a> {
    fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }

    fn error(&self) -> io::Error {
        let code = u32_at(self.body, 0).map_or(libc::EIO, |code| i32::from_ne_bytes(code.to_ne_bytes()).wrapping_neg());
        io::Error::from_raw_os_error(code)
    }

    /// The text of an attribute; nothing in messages of other subsystems.
    fn text(&self, wanted: u16) -> Option<&'a str> {
        if self.kind >> 8 != SUBSYSTEM {
            return None;
        }
        let mut rest = self.body.get(4..)?;
        loop {
            let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)? & 0x3fff);
            let value = rest.get(4..length)?;
            if kind == wanted {
                return std::str::from_utf8(value).ok().map(|text| text.trim_end_matches('\0'));
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, text: &str) -> Vec<u8> {
        let length = 4 + text.len() + 1;
        let mut bytes = [u16::try_from(length).unwrap().to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    fn new_chain() -> Vec<u8> {
        let family = [10, 0, 0, 0];
        message(SUBSYSTEM << 8 | NEW_CHAIN, &[&family[..], &attribute(1, "filter"), &attribute(3, "FORWARD")].concat())
    }

    #[test]
    fn messages_tell_family_table_and_chain() {
        let bytes = [new_chain(), message(DONE, &[0; 4])].concat();
        let mut messages = Messages(&bytes);
        let first = messages.next().unwrap();
        assert_eq!(
            (first.family(), first.text(1), first.text(3), first.text(2)),
            (10, Some("filter"), Some("FORWARD"), None)
        );
        assert_eq!(messages.next().map(|message| message.kind), Some(DONE));
        assert!(messages.next().is_none());
        let refused = message(ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(Messages(&refused).next().unwrap().error().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn messages_that_are_cut_short_end_the_reading() {
        let whole = new_chain();
        for length in 0..whole.len() {
            for message in Messages(&whole[..length]) {
                let _ = (message.family(), message.text(1), message.text(3));
            }
        }
        let zero = vec![0; 64];
        assert!(Messages(&zero).next().is_none());
        // An attribute of length 0 must not hold the reader up.
        let stuck = message(SUBSYSTEM << 8 | NEW_CHAIN, &[0; 32]);
        assert_eq!(Messages(&stuck).next().unwrap().text(1), None);
    }

    #[tokio::test]
    async fn a_missing_program_and_a_complaint_are_one_line() {
        let missing = run_program("no-such-program-of-rnet", &[], "").await.unwrap_err();
        assert!(missing.contains("no-such-program-of-rnet is missing"), "{missing}");
        let complaint = run_program("sh", &["-c", "cat; echo >&2; echo why >&2; exit 1"], "in").await.unwrap_err();
        assert_eq!(complaint, "sh: why");
        assert_eq!(run_program("cat", &[], "in").await.unwrap(), "in");
    }
}
