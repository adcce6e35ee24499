//! Who has a UDP or TCP port of this network namespace: for the one line that says why it cannot be had.
//!
//! Reads /proc/net/udp, tcp and their like for IPv6, and the descriptors of processes, as ss(8) does. The kernel's own sockets (VXLAN devices) belong to
//! nobody there.

use std::fs;

/// TCP_LISTEN, as /proc/net/tcp has it.
const LISTENING: &str = "0A";

/// The program that has UDP `port`, as `name (process 4711)`; nothing if that cannot be told.
pub fn of_udp_port(port: u16) -> Option<String> {
    of(["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"], port, None)
}

/// The program that listens on TCP `port`; see [`of_udp_port`].
pub fn of_tcp_port(port: u16) -> Option<String> {
    of(["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"], port, Some(LISTENING))
}

fn of(tables: [&str; 2], port: u16, state: Option<&str>) -> Option<String> {
    let inodes: Vec<String> =
        tables.iter().flat_map(|path| inodes(&fs::read_to_string(path).unwrap_or_default(), port, state)).collect();
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let is_wanted = |link: std::path::PathBuf| link.to_str().is_some_and(|text| wanted.iter().any(|w| w == text));
        descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).any(is_wanted).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (process {pid})", name.trim())
        })
    })
}

/// Numbers of the sockets that are bound to `port`, in this state if one is given, in a table as /proc/net/udp and tcp have it
/// (proc_net_udp(5)).
fn inodes(table: &str, port: u16, state: Option<&str>) -> Vec<String> {
    let inode = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let bound = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let is_so = words.nth(1).is_some_and(|found| state.is_none_or(|wanted| wanted == found));
        let inode = words.nth(5)?;
        (bound == port && is_so && inode != "0").then(|| inode.to_string())
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_number_and_the_kernels_own_sockets_are_nobodys() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: 00000000:1A80 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 70907 2 0000000000000000 0
  101: 00000000:1A81 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
";
        assert_eq!(inodes(table, 0x1a80, None), ["70907"]);
        assert_eq!(inodes(table, 0x1a80, Some("07")), ["70907"]);
        assert!(inodes(table, 0x1a80, Some(LISTENING)).is_empty());
        assert!(inodes(table, 0x1a81, None).is_empty() && inodes("", 1, None).is_empty());
    }

    #[test]
    fn we_find_ourselves() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp_port(socket.local_addr().unwrap().port());
        let us = format!("(process {})", std::process::id());
        assert!(holder.is_some_and(|holder| holder.contains(&us)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_tcp_port(listener.local_addr().unwrap().port());
        assert!(holder.is_some_and(|holder| holder.contains(&us)));
    }
}
