//! Interfaces of this host that lead to networks of the mesh: `bridge add`, `bridge del`.
//!
//! Owns their options too (the other commands' are in `args`). Words are parsed here, every fault of them told at once; what may be is the router's decision.

use super::args::Router;
use super::{Failure, ask};
use crate::node::command::{Command, Uplink, UplinkCapture};
use crate::types::{InterfaceName, Invalid, Network};
use clap::{Args, Subcommand};

pub const BRIDGE: &str = "\
Examples:
  rnet bridge add eth1 --network 10.2.1.0/24        a network card without addresses, and all that is behind it
  rnet bridge add docker0 --network 172.17.0.0/16   somebody else's bridge, and all that is on it
  rnet bridge del eth1

The interface stays as it is: it is captured, and what comes from the mesh is sent on it. It may go down, away and come back; it is \
kept until `rnet bridge del`. This host's own addresses on it are not reached through the mesh (`rnet expose` gives it one), and what \
is behind it is not guarded: take its addresses from outside of --ipalloc-range. To have all that is on a bridge, \
give the bridge, not a port of it.

A segment that is reached twice (two hosts on one network card's segment, a cable between two interfaces) is noticed within a \
second: all but one of its ports are cut off until it is gone; `rnet status connections` says which.";

const BRIDGE_ADD: &str = "\
Examples:
  rnet bridge add eth1 --network 10.2.1.0/24
  rnet bridge add docker0 --network 172.17.0.0/16
  rnet bridge add eth2 --network 10.2.1.0/24 --capture pcap

`rnet bridge --help` says what becomes of the interface; `rnet status connections` shows it.";

const BRIDGE_DEL: &str = "\
Example:
  rnet bridge del eth1

`rnet status targets` lists what is captured. Nothing else is changed on the interface.";

/// Options of `bridge`.
#[derive(Debug, Args)]
pub struct Bridge {
    /// What is to be done
    #[command(subcommand)]
    pub what: BridgeWhat,
}

/// The subcommands of `bridge`.
#[derive(Debug, Subcommand)]
pub enum BridgeWhat {
    /// Capture an interface for a network of the mesh
    #[command(after_help = BRIDGE_ADD)]
    Add {
        /// Its name
        #[arg(value_name = "IF")]
        interface: String,
        /// The network that its segment is on; made if it is not there
        #[arg(long, value_name = "CIDR")]
        network: String,
        /// How: packet (AF_PACKET, as fast as a TAP) or pcap (libpcap, the portable way)
        #[arg(long, value_name = "HOW", default_value = "packet")]
        capture: String,
    },
    /// Give an interface up
    #[command(after_help = BRIDGE_DEL)]
    Del {
        /// Its name
        #[arg(value_name = "IF")]
        interface: String,
    },
}

/// `rnet bridge`.
pub fn bridge(router: &Router, options: &Bridge) -> Result<(), Failure> {
    let (what, command) = match &options.what {
        BridgeWhat::Add { .. } => ("bridge add", wanted(&options.what)),
        BridgeWhat::Del { .. } => ("bridge del", wanted(&options.what)),
    };
    let lines = |faults: Vec<String>| faults.into_iter().map(|fault| format!("{what}: {fault}")).collect();
    let command = command.map_err(|faults| Failure { lines: lines(faults), code: 2 })?;
    ask::ask_idly(what, router, command)
}

/// What the router is to do, or every fault at once.
fn wanted(what: &BridgeWhat) -> Result<Command, Vec<String>> {
    let name = |text: &str| text.parse::<InterfaceName>().map_err(|why: Invalid| why.to_string());
    match what {
        BridgeWhat::Del { interface } => {
            name(interface).map(|interface| Command::Unbridge { interface }).map_err(|why| vec![why])
        }
        BridgeWhat::Add { interface, network, capture } => {
            let network = network.parse::<Network>().map_err(|why| format!("--network: {why}"));
            let known = [UplinkCapture::Packet, UplinkCapture::Pcap];
            let found = known.into_iter().find(|known| known.name() == capture);
            let unknown = || format!("--capture: {}", Invalid::new(capture, "one of packet, pcap"));
            match (name(interface), network, found.ok_or_else(unknown)) {
                (Ok(interface), Ok(network), Ok(capture)) => {
                    Ok(Command::Bridge(Uplink { interface, network, capture }))
                }
                (one, two, three) => Err([one.err(), two.err(), three.err()].into_iter().flatten().collect()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{self, Cli};
    use clap::Parser;

    fn of(line: &str) -> Result<Command, Vec<String>> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let args::Command::Bridge(options) = cli.command else { panic!() };
        wanted(&options.what)
    }

    #[test]
    fn an_interface_is_captured_by_packet_unless_told_otherwise() {
        let capture = |line: &str| match of(line) {
            Ok(Command::Bridge(uplink)) => uplink.capture,
            other => panic!("{other:?}"),
        };
        assert_eq!(capture("rnet bridge add eth1 --network 10.2.1.0/24"), UplinkCapture::Packet);
        assert_eq!(capture("rnet bridge add eth1 --network 10.2.1.0/24 --capture pcap"), UplinkCapture::Pcap);
        assert!(matches!(of("rnet bridge del eth1"), Ok(Command::Unbridge { .. })));
    }

    #[test]
    fn every_fault_is_told_in_a_line_of_its_own() {
        let facts: [(&str, &[&str]); 4] = [
            ("add eth/1 --network 10.2.1.7/24 --capture tap", &["ip link", "--network: ", "packet, pcap"]),
            ("add eth1 --network x", &["--network: "]),
            ("del a:b", &["ip link"]),
            ("add x234567890123456 --network 10.2.1.0/24", &["ip link"]),
        ];
        for (line, faults) in facts {
            let lines = of(&format!("rnet bridge {line}")).unwrap_err();
            assert_eq!(lines.len(), faults.len(), "{line}: {lines:?}");
            assert!(lines.iter().zip(faults).all(|(line, fault)| line.contains(fault)), "{line}: {lines:?}");
        }
    }
}
