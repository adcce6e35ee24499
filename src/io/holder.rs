//! Who has a UDP port of this network namespace: for the one line that says why it cannot be had.
//!
//! Reads /proc/net/udp and udp6, and the descriptors of processes, as ss(8) does. The kernel's own sockets (VXLAN devices) belong to
//! nobody there.

use std::fs;

/// The program that has UDP `port`, as `name (process 4711)`; nothing if that cannot be told.
pub fn of_udp_port(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .flat_map(|path| inodes(&fs::read_to_string(path).unwrap_or_default(), port))
        .collect();
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

/// Numbers of the sockets that are bound to `port`, in a table as /proc/net/udp has it (proc_net_udp(5)).
fn inodes(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let bound = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let inode = words.nth(7)?;
        (bound == port && inode != "0").then(|| inode.to_string())
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
        assert_eq!(inodes(table, 0x1a80), ["70907"]);
        assert!(inodes(table, 0x1a81).is_empty() && inodes("", 1).is_empty());
    }

    #[test]
    fn we_find_ourselves() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp_port(socket.local_addr().unwrap().port());
        assert!(holder.is_some_and(|holder| holder.contains(&format!("(process {})", std::process::id()))));
    }
}
