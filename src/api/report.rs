//! `Status` as text, in the manner of `weave status`, and as JSON.
//!
//! Owns every line that `rnet status`, `rnet status ...`, `rnet ps` and `rnet report` print; decides nothing about their
//! contents. Columns are as wide as their widest cell, last columns are not padded, and each text ends with a line end
//! unless it is empty. Texts of other peers (nicknames, reasons) were made harmless when they were parsed; `line` makes
//! sure once more, because a terminal obeys what it is sent.

mod addresses;
mod framings;
mod quality;
mod uplinks;
mod vteps;

use crate::node::command::Attachment;
use crate::node::status::{
    Connection, ConnectionState, Count, DatapathStatus, PathLimit, Peer, Status, UplinkStatus, VtepStatus,
};
use crate::types::{Framing, NetId, Nickname, PeerName, PortMap, Target};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write;

/// What of the status is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The summary.
    Summary,
    /// Links and attempts.
    Connections,
    /// The topology.
    Peers,
    /// What the user gave to dial.
    Targets,
    /// Networks.
    Networks,
    /// Who hands out which addresses.
    Ipam,
}

/// The view as text.
pub fn text(status: &Status, view: View) -> String {
    match view {
        View::Summary => summary(status),
        View::Connections => connections(status),
        View::Peers => peers(&status.peers),
        View::Targets => {
            let dialled: String = status.targets.iter().map(|target| format!("{target}\n")).collect();
            dialled + &vteps::targets(&status.vteps) + &uplinks::targets(&status.uplinks)
        }
        View::Networks => networks(status),
        View::Ipam => addresses::text(status),
    }
}

/// The view as JSON, indented.
pub fn json(status: &Status, view: View) -> Result<String, serde_json::Error> {
    let text = match view {
        View::Summary => serde_json::to_string_pretty(status),
        View::Connections => serde_json::to_string_pretty(&ways(status)),
        View::Peers => serde_json::to_string_pretty(&status.peers),
        View::Targets => {
            let dialled = status.targets.iter().map(Target::to_string);
            let all = dialled.chain(status.vteps.iter().map(|vtep| vtep.address.to_string()));
            let all = all.chain(status.uplinks.iter().map(|uplink| uplink.interface.to_string()));
            serde_json::to_string_pretty(&all.collect::<Vec<_>>())
        }
        View::Networks => serde_json::to_string_pretty(&status.networks),
        View::Ipam => serde_json::to_string_pretty(&status.ipam),
    }?;
    Ok(text + "\n")
}

/// What the view of connections has, as JSON: objects that all have `kind`, `state` (as the text has it), `encrypted`, `info`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Way<'a> {
    /// A link, or an attempt at one.
    Link(&'a Connection),
    Vtep(Unlinked<'a, VtepStatus>),
    Interface(Unlinked<'a, UplinkStatus>),
}

/// What is no link, with the words that links have.
#[derive(Serialize)]
struct Unlinked<'a, T> {
    state: &'static str,
    encrypted: bool,
    #[serde(flatten)]
    what: &'a T,
}

fn ways(status: &Status) -> Vec<Way<'_>> {
    let links = status.connections.iter().map(Way::Link);
    let vteps =
        status.vteps.iter().map(|what| Way::Vtep(Unlinked { state: vteps::state(what), encrypted: false, what }));
    let interfaces = status.uplinks.iter().map(|what| {
        let state = uplinks::condition(what.condition);
        Way::Interface(Unlinked { state, encrypted: false, what })
    });
    links.chain(vteps).chain(interfaces).collect()
}

/// `rnet ps`: a line for each interface: name or id, MAC, addresses; ports of this host that lead to it.
pub fn attachments<'a>(attachments: impl IntoIterator<Item = &'a Attachment>) -> String {
    let mut rows = Vec::new();
    for attachment in attachments {
        let id = attachment.name.clone().unwrap_or_else(|| short_id(&attachment.key).to_string());
        for interface in &attachment.interfaces {
            let addresses: Vec<String> = interface.addresses.iter().map(|address| address.to_string()).collect();
            rows.push(vec![id.clone(), interface.mac.to_string(), addresses.join(" ")]);
        }
        // Beside its first address, as `docker ps` shows them.
        let published = attachment.published.iter().map(PortMap::arrow).collect::<Vec<_>>().join(" ");
        let first = rows.len() - attachment.interfaces.len();
        if let Some(row) = rows.get_mut(first).filter(|_| !published.is_empty()) {
            row.push(published);
        }
        if attachment.interfaces.is_empty() {
            rows.push(vec![id]);
        }
    }
    columns(&rows)
}

/// Whether `wanted` means this attachment: its name, its key, or the beginning (4 characters or more) of a container id.
pub fn is_meant(attachment: &Attachment, wanted: &str) -> bool {
    attachment.key == wanted
        || attachment.name.as_deref() == Some(wanted)
        || (wanted.len() >= 4 && is_container(&attachment.key) && attachment.key.starts_with(wanted))
}

/// `7e:21:4a:70:2f:45(host2)`, as Weave's users know it.
pub fn who(name: PeerName, nickname: &Nickname) -> String {
    format!("{name}({nickname})")
}

/// Seconds for people: `12s`, `3m12s`, `5h03m`, `2d05h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{minutes}m{:02}s", seconds % 60),
        3600..=86_399 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn is_container(key: &str) -> bool {
    key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn short_id(key: &str) -> &str {
    if is_container(key) { key.get(..12).unwrap_or(key) } else { key }
}

fn summary(status: &Status) -> String {
    let established = status.peers.iter().flat_map(|peer| &peer.links).filter(|link| link.established).count();
    let pending = status.peers.iter().map(|peer| peer.links.len()).sum::<usize>() - established;
    let mut text = format!("\n{:>15}: {}\n\n", "Version", status.version);
    let mut row = |label: &str, value: String| {
        let _ = writeln!(text, "{label:>15}: {value}");
    };
    row("Service", "router".to_string());
    row("Name", who(status.name, &status.nickname));
    row("Encryption", enabled(status.encrypted));
    row("PeerDiscovery", enabled(status.discovery));
    row("AllowList", status.allowed.map_or_else(|| "none".to_string(), |keys| counted(keys, "key")));
    row("Port", status.port.to_string());
    row("MTU", mtu(status));
    row("Framing", framings::summary(&status.framing));
    row("Data path", datapath(&status.datapath));
    row("Uptime", duration(status.uptime));
    row("Targets", status.targets.len().to_string());
    row("Connections", states(&status.connections));
    vteps::summary(status).into_iter().for_each(|vteps| row("VTEPs", vteps));
    uplinks::summary(status).into_iter().for_each(|uplinks| row("Bridged", uplinks));
    row("Peers", format!("{} (with {})", status.peers.len(), links(established, pending)));
    let open = status.networks.iter().filter(|network| network.open).count();
    row("Networks", format!("{} ({open} open here)", status.networks.len()));
    row("Attachments", status.attachments.len().to_string());
    let traffic = &status.traffic;
    row("From bridge", count(traffic.from_bridge));
    row("To bridge", count(traffic.to_bridge));
    row("From net", count(traffic.from_net));
    row("To net", count(traffic.to_net));
    if status.framing.engine == Some(Framing::Vxlan) {
        row("From VXLAN", count(traffic.from_vxlan));
        row("To VXLAN", count(traffic.to_vxlan));
    }
    let drops: Vec<String> = status.drops.iter().map(|(reason, frames)| format!("{reason}={frames}")).collect();
    row("Drops", if drops.is_empty() { "none".to_string() } else { drops.join(" ") });
    addresses::summary(status, &mut text);
    if !status.encrypted {
        let _ = writeln!(text, "\n{}", open_mesh(status.port, status.allowed.is_some()));
    }
    text
}

/// `tap, 2 threads, offloads: checksum tso sparse-lane gso gro, without: uso fair-queues`.
fn datapath(status: &DatapathStatus) -> String {
    let pinned = if status.pinned { " pinned" } else { "" };
    let uncut = status.uncut.then(|| "TCP comes uncut".to_string());
    let out = (status.injection != status.capture).then(|| format!("frames go out by {}", status.injection));
    let ways: Vec<String> = uncut.into_iter().chain(out).collect();
    let ways = if ways.is_empty() { String::new() } else { format!(" ({})", ways.join(", ")) };
    let mut text = format!("{}{ways}, {}{pinned}", status.capture, counted(status.threads, "thread"));
    for (label, wanted) in [("offloads", true), ("without", false)] {
        let names: Vec<&str> =
            status.offloads().into_iter().filter(|(_, on)| *on == wanted).map(|(name, _)| name).collect();
        if !names.is_empty() {
            let _ = write!(text, ", {label}: {}", names.join(" "));
        }
    }
    text
}

/// The warning of a mesh without a password, one line without its end.
pub fn open_mesh(port: u16, allow_list: bool) -> String {
    if allow_list {
        "Warning: no password: traffic between hosts is not encrypted".to_string()
    } else {
        format!("Warning: no password: traffic is not encrypted, and whoever reaches port {port} can join")
    }
}

fn enabled(on: bool) -> String {
    if on { "enabled" } else { "disabled" }.to_string()
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn count(count: Count) -> String {
    format!("{} frames, {} bytes", count.frames, count.bytes)
}

fn links(established: usize, pending: usize) -> String {
    match (established, pending) {
        (0, 0) => "no connections".to_string(),
        (e, 0) => format!("{e} established connection{}", if e == 1 { "" } else { "s" }),
        (0, p) => format!("{p} pending connection{}", if p == 1 { "" } else { "s" }),
        (e, p) => format!("{e} established, {p} pending connections"),
    }
}

fn states(connections: &[Connection]) -> String {
    use ConnectionState::{Connecting, Direct, Established, Failed, Pending, Relayed, Retrying};
    let present: Vec<String> = [Established, Pending, Direct, Relayed, Retrying, Failed, Connecting]
        .into_iter()
        .map(|state| (state, connections.iter().filter(|connection| connection.state == state).count()))
        .filter(|(_, number)| *number > 0)
        .map(|(state, number)| format!("{number} {}", state_name(state)))
        .collect();
    if present.is_empty() { "0".to_string() } else { format!("{} ({})", connections.len(), present.join(", ")) }
}

fn state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Established => "established",
        ConnectionState::Pending => "pending",
        ConnectionState::Direct => "direct",
        ConnectionState::Relayed => "relayed",
        ConnectionState::Retrying => "retrying",
        ConnectionState::Failed => "failed",
        ConnectionState::Connecting => "connecting",
    }
}

fn arrow(outbound: bool) -> String {
    if outbound { "->" } else { "<-" }.to_string()
}

fn connections(status: &Status) -> String {
    let row = |connection: &Connection| {
        vec![
            arrow(connection.outbound),
            format!("{:<21}", line(&connection.address)),
            format!("{:<11}", state_name(connection.state)),
            story(connection),
        ]
    };
    let others = vteps::connections(&status.vteps).chain(uplinks::connections(&status.uplinks));
    columns(&status.connections.iter().map(row).chain(others).collect::<Vec<_>>())
}

fn mtu(status: &Status) -> String {
    match &status.mtu_limit {
        _ if !status.mtu_auto => status.mtu.to_string(),
        None => format!("{} (auto: no path is measured yet)", status.mtu),
        Some(PathLimit { ends: [(one, one_name), (other, other_name)], mtu }) => {
            let (one, other) = (who(*one, one_name), who(*other, other_name));
            format!("{} (auto: the path between {one} and {other} takes {mtu} bytes)", status.mtu)
        }
    }
}

/// What the last column tells of a connection.
fn story(connection: &Connection) -> String {
    let mut words = Vec::new();
    use ConnectionState::{Direct, Established, Pending, Relayed};
    if matches!(connection.state, Established | Pending | Direct | Relayed) {
        words.push(format!("{:<11}", if connection.encrypted { "encrypted" } else { "unencrypted" }));
        words.push(format!(
            "{:<6}",
            connection.path.as_ref().map_or("none".to_string(), |path| path.framing.to_string())
        ));
    }
    if let Some((name, nickname)) = &connection.peer {
        words.push(who(*name, nickname));
    }
    if let Some((name, nickname)) = &connection.via {
        words.push(format!("by way of {}", who(*name, nickname)));
    }
    if let Some(path) = &connection.path {
        words.push(format!("rtt={}", milliseconds(path.rtt_us)));
        words.push(format!("jitter={}", milliseconds(path.jitter_us)));
        words.push(quality::loss(path));
        if path.mtu > 0 {
            words.push(format!("mtu={}", path.mtu));
        }
        words.extend(path.cipher.map(|cipher| format!("cipher={}", cipher.name())));
        words.push(format!("up={}", duration(path.up_for)));
        words.extend(framings::of_path(path));
    }
    if !connection.info.is_empty() {
        words.push(line(&connection.info));
    }
    let retry = connection.retry_in.map(|seconds| format!("retry: in {}", duration(seconds)));
    match (words.is_empty(), retry) {
        (_, None) => words.join(" "),
        (true, Some(retry)) => retry,
        (false, Some(retry)) => format!("{}, {retry}", words.join(" ")),
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:02}ms", microseconds / 1000, microseconds % 1000 / 10)
}

fn peers(peers: &[Peer]) -> String {
    let mut text = String::new();
    for (index, peer) in peers.iter().enumerate() {
        let unreachable = if index > 0 && !peer.reachable { " - unreachable!" } else { "" };
        let _ = writeln!(text, "{}{unreachable}{}", who(peer.name, &peer.nickname), quality::way(peer, peers));
        let row = |link: &crate::node::status::PeerLink| {
            vec![
                format!("   {}", arrow(link.outbound)),
                format!("{:<21}", link.address.to_string()),
                format!("{:<37}", who(link.name, &link.nickname)),
                if link.established { "established" } else { "pending" }.to_string(),
                if link.cost > 0 { format!("cost={}", milliseconds(link.cost.into())) } else { String::new() },
            ]
        };
        text += &columns(&peer.links.iter().map(row).collect::<Vec<_>>());
    }
    text
}

fn networks(status: &Status) -> String {
    let nicknames: HashMap<PeerName, &Nickname> = status.peers.iter().map(|peer| (peer.name, &peer.nickname)).collect();
    let peer = |name: &PeerName| match nicknames.get(name) {
        Some(nickname) => who(*name, nickname),
        None => name.to_string(),
    };
    let row = |network: &crate::node::status::NetworkStatus| {
        vec![
            network.network.to_string(),
            format!("id={}", id(network.id)),
            if network.open { "open" } else { "elsewhere" }.to_string(),
            counted(network.attachments, "attachment"),
            if network.addresses == 1 { "1 address".to_string() } else { format!("{} addresses", network.addresses) },
            {
                let others = vteps::of_network(network).chain(uplinks::of_network(network));
                network.peers.iter().map(peer).chain(others).collect::<Vec<_>>().join(" ")
            },
        ]
    };
    columns(&status.networks.iter().map(row).collect::<Vec<_>>())
}

/// A network id as the names of its bridge and capture port carry it.
fn id(id: NetId) -> String {
    format!("{:06x}", id.value())
}

/// Text of others on one line without control characters.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Rows of cells, columns one space apart, as wide as their widest cell; nothing is padded at a line's end.
fn columns(rows: &[Vec<String>]) -> String {
    let widths = rows.iter().fold(Vec::new(), |mut widths: Vec<usize>, row| {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
        widths
    });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join(" ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
