//! The packet filter of this host: set, kept as it was set although others flush it, and taken away.
//!
//! Owns the table `inet rnet`, our rules in the chains of other firewalls, our bridges in firewalld's trusted zone, and the
//! settings of the kernel that routing takes. What is to be there follows from the `Edge` that was last set and from the
//! bridges that are open; `rules` renders it. With nothing exposed or published there is no table, and with no br_netfilter
//! no program is run when a network opens.
//!
//! ```text
//! set(edge), opened, closed --> settle --> table, openings, zone
//! the kernel tells of a change in a table that concerns us --(PAUSE)--> settle again: only what differs is put back
//! ```
//!
//! Settings that were switched on for the first time are written to a file in the run directory, which goes with the next
//! boot as they do; `reset` switches them back.

use super::{names, rules};
use crate::io::firewall::{self, Chain, Watch};
use crate::io::netns::{read_sysctl, set_sysctl};
use crate::node::border::Edge;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Names of the tables whose changes concern us: ours, those of iptables-nft and so of Docker, and firewalld's.
const TABLES: [&str; 3] = [rules::TABLE, "filter", FIREWALLD];
const FIREWALLD: &str = "firewalld";
/// Changes within this time are answered together.
const PAUSE: Duration = Duration::from_millis(100);
/// And not more often than this: others may change their rules all the time.
const SPACING: Duration = Duration::from_secs(1);
/// Who fights us over the table is told of so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The file of settings that we switched on.
pub const SWITCHED: &str = "switched";

const INET: u8 = 1;
/// Families of iptables and ip6tables: number, name, whether IPv4, br_netfilter's switch.
const FAMILIES: [(u8, &str, bool, &str); 2] =
    [(2, "ip", true, "bridge/bridge-nf-call-iptables"), (10, "ip6", false, "bridge/bridge-nf-call-ip6tables")];

/// See the head of this file. Cheap to clone.
#[derive(Clone)]
pub struct Firewall(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    edge: Edge,
    bridges: BTreeSet<String>,
    /// Our table as the kernel shows it when it is right; nothing if there is to be none.
    table: Option<String>,
    /// Bridges in firewalld's trusted zone.
    trusted: BTreeSet<String>,
    /// Bridges with `route_localnet`.
    localnet: BTreeSet<String>,
    run_dir: Option<PathBuf>,
    told_at: Option<Instant>,
    /// A problem with other firewalls is told once.
    complained: bool,
}

impl Firewall {
    /// Nothing is set. Settings that are switched on are remembered in `run_dir`, if there is one.
    pub fn new(run_dir: Option<PathBuf>) -> Firewall {
        Firewall(Arc::new(Mutex::new(Kept { run_dir, ..Kept::default() })))
    }

    /// Makes the packet filter do what `edge` says. The error is one line; the filter is then as it was.
    pub async fn set(&self, edge: Edge) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        kept.set(edge).await.map_err(|why| format!("packet filter: {why}"))?;
        kept.settle_others().await;
        Ok(())
    }

    /// A network was opened or closed.
    pub async fn bridge(&self, name: String, open: bool) {
        let mut kept = self.0.lock().await;
        let changed = if open { kept.bridges.insert(name) } else { kept.bridges.remove(&name) };
        if changed {
            kept.settle_others().await;
        }
    }

    /// Makes other firewalls let through what is ours now and nothing else: a killed router may have left more.
    pub async fn settle(&self) {
        self.0.lock().await.settle_others().await;
    }

    /// Puts back what others took away, for ever. Ends if the kernel has no nftables.
    pub async fn keep(self) {
        let Ok(mut watch) = Watch::open() else { return };
        while watch.changed(&TABLES).await.is_ok() {
            sleep(PAUSE).await;
            let begun = Instant::now();
            {
                let mut kept = self.0.lock().await;
                kept.settle_table().await;
                kept.settle_others().await;
            }
            // What was told meanwhile, our own doing among it, waits in the socket.
            sleep(SPACING.saturating_sub(begun.elapsed() + PAUSE)).await;
        }
    }
}

/// Takes away what a killed router left, which also left devices if `leftovers`; what it let through for bridges that are `kept` stays.
/// Answers whether there was something.
pub async fn sweep(leftovers: bool, kept: &BTreeSet<String>) -> Result<bool, String> {
    let chains = firewall::chains().unwrap_or_default();
    let ours = chains.iter().any(|chain| chain.family == INET && chain.table == rules::TABLE);
    if ours {
        firewall::change(&rules::removal()).await?;
    }
    let mut found = ours;
    if !kept.is_empty() {
        return Ok(found);
    }
    for (family, name, ..) in FAMILIES {
        if let Some(chain) = chain_of_others(&chains, family, name) {
            // Without nft there is nothing of ours to find.
            found |= correct(&chain, &BTreeSet::new()).await.unwrap_or(false);
        }
    }
    if (found || leftovers) && chains.iter().any(|chain| chain.table == FIREWALLD) {
        let listed = firewall::run_program("firewall-cmd", &["--zone=trusted", "--list-interfaces"], "").await;
        for bridge in listed.unwrap_or_default().split_whitespace().filter(|name| names::is_ours(name, "bridge")) {
            found |= firewall_cmd("--remove-interface", bridge).await.is_ok();
        }
    }
    Ok(found)
}

/// Switches back the settings that a router of this run directory switched on.
pub fn switch_back(run_dir: &Path) -> io::Result<()> {
    let path = run_dir.join(SWITCHED);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    for line in text.lines().rev() {
        if let Some((setting, value)) = line.split_once(' ').filter(|(setting, _)| is_switchable(setting)) {
            set_sysctl(setting, value)?;
        }
    }
    std::fs::remove_file(path)
}

/// The file is ours, and still nothing else is written by its word.
fn is_switchable(setting: &str) -> bool {
    let device = setting.strip_prefix("ipv6/conf/").and_then(|rest| rest.strip_suffix("/accept_ra"));
    matches!(setting, "ipv4/ip_forward" | "ipv6/conf/all/forwarding")
        || device.is_some_and(|device| !device.contains('/') && device != "..")
}

impl Kept {
    async fn set(&mut self, edge: Edge) -> Result<(), String> {
        if edge == Edge::default() {
            self.set_localnet(&BTreeSet::new());
            // Known by asking and not by heart: a killed router may have left one.
            if self.table.is_some() || has_table() {
                firewall::change(&rules::removal()).await?;
            }
            (self.table, self.edge) = (None, edge);
            return Ok(());
        }
        firewall::change(&rules::render(&edge)).await?;
        self.table = Some(list_table().await);
        // Behind the rules, so that nothing is routed that they forbid, and not at all where there can be none.
        self.switch_on(&edge)?;
        // Only behind the rule that keeps others away from the loopback.
        let published = edge.publications.iter().filter(|publication| publication.to.is_ipv4());
        self.set_localnet(&published.map(|publication| names::bridge(publication.id)).collect());
        self.edge = edge;
        Ok(())
    }

    fn set_localnet(&mut self, wanted: &BTreeSet<String>) {
        let set = |bridge: &String, value| {
            let setting = format!("ipv4/conf/{bridge}/route_localnet");
            if let Err(why) = set_sysctl(&setting, value) {
                tracing::warn!("published ports do not work from this host's loopback: {why}");
            }
        };
        self.localnet.difference(wanted).for_each(|bridge| set(bridge, "0"));
        // Again for those that had it: the bridge may be another one of the same name.
        wanted.iter().for_each(|bridge| set(bridge, "1"));
        self.localnet.clone_from(wanted);
    }

    /// Has the kernel forward packets, of the families that are exposed.
    fn switch_on(&self, edge: &Edge) -> Result<(), String> {
        let has = |ipv4: bool| edge.exposures.iter().any(|e| e.network.cidr().addr().is_ipv4() == ipv4);
        if has(true) {
            self.switch("ipv4/ip_forward", "1")?;
        }
        if has(false) && read_sysctl("ipv6/conf/all/forwarding").is_some_and(|value| value == "0") {
            // A router does not listen to other routers, unless it is told to: the host's own way out may hang on it.
            for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
                let device = entry.file_name().to_string_lossy().into_owned();
                let setting = format!("ipv6/conf/{device}/accept_ra");
                if !matches!(device.as_str(), "all" | "default") && read_sysctl(&setting).is_some_and(|v| v == "1") {
                    self.switch(&setting, "2")?;
                }
            }
            self.switch("ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    }

    fn switch(&self, setting: &str, value: &str) -> Result<(), String> {
        let Some(before) = read_sysctl(setting).filter(|before| before != value) else { return Ok(()) };
        if let Some(run_dir) = &self.run_dir {
            let path = run_dir.join(SWITCHED);
            let mut text = std::fs::read_to_string(&path).unwrap_or_default();
            text += &format!("{setting} {before}\n");
            std::fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))?;
        }
        set_sysctl(setting, value).map_err(|why| why.to_string())?;
        let name = setting.replace('/', ".");
        tracing::info!(
            "set net.{name} from {before} to {value}, as exposed networks need it; `rnet reset` sets it back"
        );
        Ok(())
    }

    /// Our table is as it was set, or is made so.
    async fn settle_table(&mut self) {
        let Some(right) = self.table.clone() else { return };
        if list_table().await == right {
            return;
        }
        let now = Instant::now();
        if self.told_at.is_none_or(|at| now - at >= TELL_EVERY) {
            tracing::warn!("somebody changed the table inet {} of the packet filter: it is put back", rules::TABLE);
            self.told_at = Some(now);
        }
        match firewall::change(&rules::render(&self.edge)).await {
            Ok(()) => self.table = Some(list_table().await),
            Err(why) => tracing::error!("the packet filter could not be put back: {why}"),
        }
    }

    /// Other firewalls let through what is ours. That they do not is their owner's to see, not a reason to fail.
    async fn settle_others(&mut self) {
        if let Err(why) = self.try_settle_others().await {
            if !self.complained {
                tracing::warn!("another firewall of this host may drop frames of its networks: {why}");
            }
            self.complained = true;
        }
    }

    async fn try_settle_others(&mut self) -> Result<(), String> {
        let filtered = FAMILIES.map(|(.., switch)| read_sysctl(switch).is_some_and(|value| value == "1"));
        let nothing = self.edge == Edge::default() && !filtered.contains(&true);
        if nothing && self.trusted.is_empty() {
            return Ok(());
        }
        let chains = firewall::chains().unwrap_or_default();
        for ((family, name, ipv4, _), filtered) in FAMILIES.into_iter().zip(filtered) {
            if let Some(chain) = chain_of_others(&chains, family, name) {
                correct(&chain, &rules::openings(&self.edge, ipv4, &self.bridges, filtered)).await?;
            }
        }
        self.settle_zone(chains.iter().any(|chain| chain.table == FIREWALLD), filtered.contains(&true)).await
    }

    async fn settle_zone(&mut self, firewalld_runs: bool, filtered: bool) -> Result<(), String> {
        if !firewalld_runs {
            self.trusted.clear();
            return Ok(());
        }
        let exposed = self.edge.exposures.iter().map(|exposure| names::bridge(exposure.id));
        let mut wanted: BTreeSet<String> = exposed.collect();
        wanted.extend(self.bridges.iter().filter(|_| filtered).cloned());
        for gone in self.trusted.difference(&wanted) {
            let _ = firewall_cmd("--remove-interface", gone).await;
        }
        // Asked each time: firewalld forgets them when it is reloaded.
        for bridge in &wanted {
            if firewall_cmd("--query-interface", bridge).await.is_err() {
                firewall_cmd("--add-interface", bridge).await?;
            }
        }
        self.trusted = wanted;
        Ok(())
    }
}

async fn firewall_cmd(what: &str, bridge: &str) -> Result<(), String> {
    let arguments = ["--zone=trusted".to_string(), format!("{what}={bridge}")];
    firewall::run_program("firewall-cmd", &[&arguments[0], &arguments[1]], "").await.map(drop)
}

fn has_table() -> bool {
    let chains = firewall::chains().unwrap_or_default();
    chains.iter().any(|chain| chain.family == INET && chain.table == rules::TABLE)
}

/// Our table as the kernel shows it, without the handles that differ each time; empty if there is none.
async fn list_table() -> String {
    let text = firewall::list(&["table", "inet", rules::TABLE]).await.unwrap_or_default();
    text.lines().map(|line| line.split(" # handle ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Where another firewall drops what is forwarded: the chain that Docker leaves to others, else that of iptables.
fn chain_of_others(chains: &[Chain], family: u8, name: &str) -> Option<String> {
    let is_there = |wanted: &&str| {
        chains.iter().any(|chain| chain.family == family && chain.table == "filter" && chain.name == *wanted)
    };
    ["DOCKER-USER", "FORWARD"].into_iter().find(is_there).map(|chain| format!("{name} filter {chain}"))
}

/// Makes `wanted` our only rules in a chain. Answers whether that changed something.
async fn correct(chain: &str, wanted: &BTreeSet<String>) -> Result<bool, String> {
    let mut words = vec!["chain"];
    words.extend(chain.split(' '));
    let listing = firewall::list(&words).await?;
    match rules::correction(chain, &listing, wanted) {
        None => Ok(false),
        Some(text) => firewall::change(&text).await.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: u8, table: &str, name: &str) -> Chain {
        Chain { family, table: table.into(), name: name.into() }
    }

    #[test]
    fn dockers_chain_for_others_comes_before_that_of_iptables() {
        let mut chains =
            vec![chain(2, "filter", "FORWARD"), chain(10, "nat", "FORWARD"), chain(1, "filter", "FORWARD")];
        assert_eq!(chain_of_others(&chains, 2, "ip").as_deref(), Some("ip filter FORWARD"));
        assert_eq!(chain_of_others(&chains, 10, "ip6"), None);
        chains.push(chain(2, "filter", "DOCKER-USER"));
        assert_eq!(chain_of_others(&chains, 2, "ip").as_deref(), Some("ip filter DOCKER-USER"));
    }

    #[test]
    fn only_what_we_switch_is_switched_back() {
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/eth0/accept_ra"] {
            assert!(is_switchable(setting), "{setting}");
        }
        for setting in ["ipv4/tcp_syncookies", "ipv6/conf/a/b/accept_ra", "ipv6/conf/../accept_ra", "../x", ""] {
            assert!(!is_switchable(setting), "{setting}");
        }
    }
}
