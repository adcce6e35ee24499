//! What goes between the demo's containers: a small server in each, and probes that this process sends from their namespaces.
//!
//! One TCP port. The first byte of a connection says what follows: `e` and every byte comes back at once, or `s` and
//! all is swallowed until the sender has finished, then its number of bytes comes back (8 bytes, big-endian).

use crate::io::netns::Netns;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The hidden word that makes `rnet demo` the server.
pub const SERVE: &str = "serve";
const PORT: u16 = 7777;
const ECHO: u8 = b'e';
const SWALLOW: u8 = b's';
const CHUNK: usize = 128 << 10;
/// A connection that says nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(5);

/// Serves for ever; prints `ready <pid>` when it can be reached.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    super::print::out(&format!("ready {}\n", std::process::id()));
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().spawn(move || drop(answer(stream)))?;
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let (mut chunk, mut total) = (vec![0; CHUNK], 0u64);
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        total += u64::try_from(length).map_err(io::Error::other)?;
        if kind == [ECHO] {
            stream.write_all(chunk.get(..length).unwrap_or_default())?;
        }
    }
    if kind == [SWALLOW] { stream.write_all(&total.to_be_bytes()) } else { Ok(()) }
}

fn connect(to: IpAddr, kind: u8, patience: Duration) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

/// Whether the server at `to` answers before patience ends. A refusal of the route counts as silence.
pub fn reaches(from: &Netns, to: IpAddr, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Each try short: a first SYN can be lost while the mesh still forms, and the kernel repeats it late.
        let once = left.min(Duration::from_millis(700)).max(Duration::from_millis(1));
        let answered = from.within(|| {
            let mut stream = connect(to, ECHO, once)?;
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0])
        });
        match answered {
            Ok(()) => return true,
            Err(_) if left.is_zero() || left <= once => return false,
            // Refused at once, for instance for want of a route: the rest of this try is waited for.
            Err(_) => thread::sleep(once.min(Duration::from_millis(100))),
        }
    }
}

/// Round-trip times of one byte, sorted.
pub fn round_trips(from: &Netns, to: IpAddr, count: usize) -> io::Result<Vec<Duration>> {
    let mut stream = from.within(|| connect(to, ECHO, STALLED))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(b".")?;
        stream.read_exact(&mut [0])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// Bits a second that arrive over one TCP connection.
pub fn throughput(from: &Netns, to: IpAddr, span: Duration) -> io::Result<f64> {
    let mut stream = from.within(|| connect(to, SWALLOW, STALLED))?;
    let (chunk, start) = (vec![0x5a; CHUNK], Instant::now());
    while start.elapsed() < span {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    // The time until everything has arrived, not just until it was buffered.
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_echoes_and_swallows() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || (0..2).for_each(|_| answer(listener.accept().unwrap().0).unwrap()));
        let mut echo = TcpStream::connect(address).unwrap();
        echo.write_all(b"eabc").unwrap();
        let mut back = [0; 3];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"abc");
        drop(echo);
        let mut sink = TcpStream::connect(address).unwrap();
        sink.write_all(b"s").unwrap();
        sink.write_all(&vec![0; 300_000]).unwrap();
        sink.shutdown(Shutdown::Write).unwrap();
        let mut total = [0; 8];
        sink.read_exact(&mut total).unwrap();
        assert_eq!(u64::from_be_bytes(total), 300_000);
        server.join().unwrap();
    }
}
