//! The TCP connections of links: accepting, dialling, reading, writing, closing.
//!
//! ```text
//! accept task  (token bucket)  ----.                          .--> reader task: socket -> Happening::Bytes
//! dial task    (5 s, resolves) ----+--> control: Links::take -+
//!                                                             '--> writer task: Links::send -> socket, then Drained
//! ```
//!
//! Bytes mean nothing here. Everything is bounded: connections accepted a second, connections open, bytes that wait in
//! either direction. A closed link is flushed and its last words are given time to arrive before the socket goes: a
//! refusal that a reset swallows would leave the other side without a reason.

use super::Happening;
use crate::node::border::{DialId, LinkId};
use crate::types::Target;
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Connections accepted at once, and then a second.
const ACCEPT_BURST: u32 = 20;
/// Time in which one more may be accepted.
const ACCEPT_EVERY: Duration = Duration::from_millis(50);
/// Links open at once, whatever the node allows: a stop against descriptors running out.
const OPEN_MAX: usize = 4096;
/// Resolving and connecting together.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried, and how long one may be silent before the next is tried beside it (RFC 8305).
const ADDRESSES_MAX: usize = 8;
const STAGGER: Duration = Duration::from_millis(250);
/// Bytes that may wait for a link's other side; one that reads less is closed.
const WAITING_MAX: usize = 16 << 20;
/// Flushing and the other side's end of a closed link.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Bytes of one read.
const READ: usize = 16 << 10;

/// Accepts until aborted.
pub async fn accept(listener: TcpListener, happenings: mpsc::Sender<Happening>) {
    let mut bucket = Bucket { full_at: Instant::now() };
    loop {
        sleep_until(bucket.take(Instant::now())).await;
        match listener.accept().await {
            Ok((stream, remote)) => {
                let happening = Happening::Connected { stream, remote: crate::io::udp::plain(remote), dial: None };
                if happenings.send(happening).await.is_err() {
                    return;
                }
            }
            // A connection that was gone again, or no descriptor left: later ones may do better.
            Err(why) => {
                tracing::debug!("accept: {why}");
                sleep(ACCEPT_EVERY * ACCEPT_BURST).await;
            }
        }
    }
}

/// Tokens without a clock that ticks: the moment at which the bucket would be full again.
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Takes a token; answers when it may be used.
    fn take(&mut self, now: Instant) -> Instant {
        let first = self.full_at.checked_sub(ACCEPT_EVERY * (ACCEPT_BURST - 1)).unwrap_or(now);
        let at = first.max(now);
        self.full_at = self.full_at.max(at) + ACCEPT_EVERY;
        at
    }
}

/// The open links of this router. Owned by control.
pub struct Links {
    happenings: mpsc::Sender<Happening>,
    open: HashMap<LinkId, Open>,
    last: u64,
}

struct Open {
    words: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    closing: Arc<Notify>,
    reader: AbortHandle,
    writer: AbortHandle,
}

impl Links {
    /// None open. Happenings go to `happenings`.
    pub fn new(happenings: mpsc::Sender<Happening>) -> Links {
        Links { happenings, open: HashMap::new(), last: 0 }
    }

    /// Begins to read and write a connection; answers its number and our own address. Nothing if there are too many, or
    /// if it is gone already.
    pub fn take(&mut self, stream: TcpStream) -> Option<(LinkId, SocketAddr)> {
        let local = crate::io::udp::plain(stream.local_addr().ok()?);
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        // A control message waits for nothing: losing the option costs delay only.
        let _ = stream.set_nodelay(true);
        self.last += 1;
        let link = LinkId(self.last);
        let (reader, writer) = stream.into_split();
        let (words, queue) = mpsc::unbounded_channel();
        let (waiting, closing) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let reading = tokio::spawn(read(link, reader, Arc::clone(&closing), self.happenings.clone()));
        let writing = tokio::spawn(write(link, writer, queue, (Arc::clone(&waiting), self.happenings.clone())));
        let (reader, writer) = (reading.abort_handle(), writing.abort_handle());
        self.open.insert(link, Open { words, waiting, closing, reader, writer });
        Some((link, local))
    }

    /// Whether that link is open: what tasks tell of others comes too late to matter.
    pub fn is_open(&self, link: LinkId) -> bool {
        self.open.contains_key(&link)
    }

    /// Writes to a link, in order. False if the other side reads too slowly: the link is then gone.
    #[must_use]
    pub fn send(&mut self, link: LinkId, bytes: Vec<u8>) -> bool {
        let Some(open) = self.open.get(&link) else { return true };
        let waiting = open.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if waiting > WAITING_MAX {
            open.writer.abort();
            self.close(link);
            return false;
        }
        // A writer that has ended has told so itself.
        let _ = open.words.send(bytes);
        true
    }

    /// Flushes what was sent, in bounded time, then closes.
    pub fn close(&mut self, link: LinkId) {
        let Some(open) = self.open.remove(&link) else { return };
        open.closing.notify_one();
        // Dropping the queue's end lets the writer finish and send its end; the reader goes on until the other side's end.
        tokio::spawn(async move {
            sleep(CLOSE_TIME).await;
            open.writer.abort();
        });
    }

    /// Forgets a link that has ended; false if it was not open.
    pub fn drop_link(&mut self, link: LinkId) -> bool {
        let Some(open) = self.open.remove(&link) else { return false };
        open.reader.abort();
        open.writer.abort();
        true
    }

    /// Resolves, connects and tells how it went.
    pub fn dial(&self, dial: DialId, target: Target, default_port: u16) {
        let happenings = self.happenings.clone();
        tokio::spawn(async move {
            let happening = match timeout(DIAL_TIME, connect(&target, default_port)).await {
                Ok(Ok((stream, remote))) => Happening::Connected { stream, remote, dial: Some(dial) },
                Ok(Err(why)) => Happening::DialFailed(dial, why),
                Err(_) => Happening::DialFailed(dial, format!("no answer within {} s", DIAL_TIME.as_secs())),
            };
            let _ = happenings.send(happening).await;
        });
    }
}

async fn connect(target: &Target, default_port: u16) -> Result<(TcpStream, SocketAddr), String> {
    let port = target.port.unwrap_or(default_port);
    let mut addresses: Vec<SocketAddr> = match target.ip() {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        // The text of the resolver's error differs by system and says no more than this.
        None => lookup_host((target.host.as_str(), port))
            .await
            .map_err(|_| format!("{}: no such name", target.host))?
            .collect(),
    };
    leave_out_ours(&mut addresses, default_port);
    let mut last = format!("{}: no address", target.host);
    let mut tries = tokio::task::JoinSet::new();
    let mut waiting = addresses.into_iter().take(ADDRESSES_MAX);
    loop {
        if let Some(address) = waiting.next() {
            tries.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        // An address that is silent must not keep the others from being tried.
        let ended =
            if waiting.len() > 0 { timeout(STAGGER, tries.join_next()).await } else { Ok(tries.join_next().await) };
        match ended {
            Ok(Some(Ok((address, Ok(stream))))) => return Ok((stream, crate::io::udp::plain(address))),
            Ok(Some(Ok((_, Err(why))))) => last = reason(&why),
            Ok(None) if waiting.len() == 0 => return Err(last),
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
}

/// A name may stand for every host of a mesh: of its addresses our own would answer first, and lead nowhere. `port`: ours.
fn leave_out_ours(addresses: &mut Vec<SocketAddr>, port: u16) {
    if addresses.len() < 2 {
        return;
    }
    // Where the kernel does not tell them, ours is refused as ourselves, and tried again.
    let ours = crate::io::own::addresses().unwrap_or_default();
    let is_ours = |to: &SocketAddr| to.port() == port && ours.iter().any(|(_, ip)| *ip == to.ip());
    let others: Vec<SocketAddr> = addresses.iter().copied().filter(|to| !is_ours(to)).collect();
    if !others.is_empty() {
        *addresses = others;
    }
}

/// An I/O error without its number.
fn reason(why: &io::Error) -> String {
    let text = why.to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    plain.to_lowercase()
}

async fn read(link: LinkId, mut reader: OwnedReadHalf, closing: Arc<Notify>, happenings: mpsc::Sender<Happening>) {
    let mut buffer = vec![0; READ];
    let why = loop {
        let result = tokio::select! {
            result = reader.read(&mut buffer) => result,
            () = closing.notified() => return linger(reader, buffer).await,
        };
        match result {
            Ok(0) => break "closed by the other side".to_string(),
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if happenings.send(Happening::Bytes(link, bytes)).await.is_err() {
                    return;
                }
            }
            Err(why) => break reason(&why),
        }
    };
    let _ = happenings.send(Happening::Down(link, why)).await;
}

/// Takes what still comes on a closed link, until the other side ends it too or has had its time.
async fn linger(mut reader: OwnedReadHalf, mut buffer: Vec<u8>) {
    let rest = async { while matches!(reader.read(&mut buffer).await, Ok(1..)) {} };
    if timeout(CLOSE_TIME, rest).await.is_err() {
        // Else the kernel would keep the socket for another minute (tcp_fin_timeout, or unsent data), for anybody's asking.
        let _ = SockRef::from(reader.as_ref()).set_linger(Some(Duration::ZERO));
    }
}

type Outlet = (Arc<AtomicUsize>, mpsc::Sender<Happening>);

async fn write(link: LinkId, mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>, outlet: Outlet) {
    let (waiting, happenings) = outlet;
    while let Some(bytes) = queue.recv().await {
        if let Err(why) = writer.write_all(&bytes).await {
            let _ = happenings.send(Happening::Down(link, reason(&why))).await;
            return;
        }
        let before = waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        if before == bytes.len() && happenings.send(Happening::Drained(link)).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_runtime<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    async fn pair(links: &mut Links) -> (LinkId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let (link, local) = links.take(near).unwrap();
        assert_eq!(local, far.peer_addr().unwrap());
        (link, far)
    }

    #[test]
    fn accepts_a_burst_and_then_twenty_a_second() {
        let now = Instant::now() + Duration::from_secs(3600);
        let mut bucket = Bucket { full_at: now - Duration::from_secs(10) };
        let times: Vec<Duration> = (0..60).map(|_| bucket.take(now) - now).collect();
        assert_eq!(times[19], Duration::ZERO);
        assert_eq!(times[20], Duration::from_millis(50));
        assert_eq!(times[59], Duration::from_secs(2));
    }

    #[test]
    fn bytes_pass_in_both_directions_and_draining_is_told() {
        on_runtime(async {
            let (happenings, mut seen) = mpsc::channel(8);
            let mut links = Links::new(happenings);
            let (link, mut far) = pair(&mut links).await;
            assert!(links.send(link, b"hello".to_vec()));
            assert!(matches!(seen.recv().await, Some(Happening::Drained(of)) if of == link));
            let mut hello = [0; 5];
            far.read_exact(&mut hello).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            assert!(matches!(seen.recv().await, Some(Happening::Bytes(of, bytes)) if of == link && bytes == b"answer"));
            drop(far);
            assert!(
                matches!(seen.recv().await, Some(Happening::Down(of, why)) if of == link && why.contains("closed"))
            );
            assert!(links.drop_link(link) && !links.drop_link(link) && !links.is_open(link));
        });
    }

    #[test]
    fn last_words_arrive_though_the_other_side_had_more_to_say() {
        on_runtime(async {
            let (happenings, mut seen) = mpsc::channel(8);
            let mut links = Links::new(happenings);
            let (link, mut far) = pair(&mut links).await;
            assert!(links.send(link, b"refused".to_vec()));
            links.close(link);
            far.write_all(&[7; 1000]).await.unwrap();
            let mut words = Vec::new();
            far.read_to_end(&mut words).await.unwrap();
            assert_eq!(words, b"refused");
            drop(far);
            drop(links);
            while let Some(happening) = seen.recv().await {
                assert!(!matches!(happening, Happening::Down(..)), "no Down follows a close");
            }
        });
    }

    #[test]
    fn a_side_that_holds_a_closed_link_is_reset() {
        on_runtime(async {
            let (happenings, _seen) = mpsc::channel(8);
            let mut links = Links::new(happenings);
            let (link, mut far) = pair(&mut links).await;
            assert!(links.send(link, b"refused".to_vec()));
            links.close(link);
            let mut words = [0; 7];
            far.read_exact(&mut words).await.unwrap();
            assert_eq!(far.read(&mut words).await.unwrap(), 0);
            // It does not end its side: after a while it is reset though it sends nothing.
            let reset = async {
                while far.take_error().unwrap().is_none() {
                    sleep(Duration::from_millis(20)).await
                }
            };
            timeout(CLOSE_TIME * 3, reset).await.unwrap();
        });
    }

    #[test]
    fn a_side_that_does_not_read_loses_its_link() {
        on_runtime(async {
            let (happenings, _seen) = mpsc::channel(8);
            let mut links = Links::new(happenings);
            let (link, _far) = pair(&mut links).await;
            let sent = (0..100).take_while(|_| links.send(link, vec![0; 1 << 20])).count();
            assert!(sent <= 16, "{sent} MiB wait");
            assert!(!links.is_open(link));
        });
    }

    #[test]
    fn of_several_addresses_our_own_is_left_out() {
        let left = |addresses: &[&str]| {
            let mut addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            leave_out_ours(&mut addresses, 6783);
            addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left(&["127.0.0.1:6783", "192.0.2.1:6783"]), ["192.0.2.1:6783"]);
        assert_eq!(left(&["127.0.0.1:7000", "192.0.2.1:6783"]).len(), 2, "somebody else's port");
        assert_eq!(left(&["127.0.0.1:6783"]), ["127.0.0.1:6783"], "alone it is told as ourselves");
    }

    #[test]
    fn a_failed_dial_says_why() {
        on_runtime(async {
            let (happenings, mut seen) = mpsc::channel(8);
            let links = Links::new(happenings);
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            links.dial(DialId(1), "127.0.0.1".parse().unwrap(), port);
            assert!(
                matches!(seen.recv().await, Some(Happening::DialFailed(DialId(1), why)) if why == "connection refused")
            );
            links.dial(DialId(2), "no-such-name.invalid".parse().unwrap(), port);
            let Some(Happening::DialFailed(DialId(2), why)) = seen.recv().await else { panic!() };
            assert!(why.contains("no-such-name.invalid") || why.contains("no answer"), "{why}");
        });
    }
}
