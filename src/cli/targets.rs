//! What this router connects to: `connect`, `forget`.
//!
//! Peers to dial and VTEPs may be given together. Words are parsed here, every fault of them told at once; what may be is the
//! router's decision.

use super::args::{Connect, Forget, Router};
use super::{Failure, ask};
use crate::node::command::{Command, Vtep};
use crate::types::{Invalid, NetId, Network, Target, VtepAddress};
use std::str::FromStr;

/// `rnet connect`.
pub fn connect(router: &Router, options: &Connect) -> Result<(), Failure> {
    let (targets, vteps) = wanted(options).map_err(|lines| Failure { lines, code: 2 })?;
    let dial = (!targets.is_empty()).then_some(Command::Connect { targets, replace: options.replace });
    let commands = dial.into_iter().chain(vteps.into_iter().map(Command::Join));
    commands.into_iter().try_for_each(|command| ask::ask("connect", router, command).map(drop))
}

/// `rnet forget`.
pub fn forget(router: &Router, options: &Forget) -> Result<(), Failure> {
    let mut faults = Vec::new();
    let (targets, addresses) = words("forget", &options.peers, &mut faults);
    let network: Option<Network> = option("forget: --network", options.network.as_deref(), &mut faults);
    if addresses.is_empty() && options.network.is_some() {
        faults.push("forget: --network is for a VTEP, vxlan://ADDRESS".to_string());
    }
    if !faults.is_empty() {
        return Err(Failure { lines: faults, code: 2 });
    }
    let dial = (!targets.is_empty()).then_some(Command::Forget { targets });
    let part = |address| Command::Part { address, network };
    let commands = dial.into_iter().chain(addresses.into_iter().map(part));
    commands.into_iter().try_for_each(|command| ask::ask_idly("forget", router, command))
}

/// What is to be dialled and joined, or every fault at once.
fn wanted(options: &Connect) -> Result<(Vec<Target>, Vec<Vtep>), Vec<String>> {
    let mut faults = Vec::new();
    let (targets, addresses) = words("connect", &options.peers, &mut faults);
    let network: Option<Network> = option("connect: --network", options.network.as_deref(), &mut faults);
    let vni: Option<NetId> = option("connect: --vni", options.vni.as_deref(), &mut faults);
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'));
    let local_port: Option<u16> = options.local_port.as_deref().and_then(|text| {
        let port = port(text);
        let fault = || format!("connect: --local-port: {}", Invalid::new(text, "a UDP port from 1 to 65535"));
        faults.extend(port.is_none().then(fault));
        port
    });
    let given = [&options.network, &options.vni, &options.local_port].map(Option::is_some);
    match addresses.first() {
        None if given.contains(&true) && faults.is_empty() => {
            faults.push("connect: --network, --vni and --local-port are for a VTEP, vxlan://ADDRESS".to_string());
        }
        Some(first) if !(given[0] && given[1]) => faults.push(format!(
            "connect: {first}: which network of the mesh is it to be on, and what does it call that? --network CIDR --vni ID"
        )),
        Some(_) if options.replace && targets.is_empty() => {
            faults.push("connect: --replace is for peers to dial: take VTEPs off with `rnet forget`".to_string());
        }
        _ => {}
    }
    let vteps = match (network, vni) {
        (Some(network), Some(vni)) => addresses
            .into_iter()
            .map(|address| {
                let local_port = local_port.unwrap_or(address.socket().port());
                Vtep { address, network, vni, local_port }
            })
            .collect(),
        _ => Vec::new(),
    };
    if faults.is_empty() { Ok((targets, vteps)) } else { Err(faults) }
}

/// Texts as what they are; faults are added to those there are.
fn words(what: &str, texts: &[String], faults: &mut Vec<String>) -> (Vec<Target>, Vec<VtepAddress>) {
    let (mut targets, mut vteps) = (Vec::new(), Vec::new());
    for text in texts {
        let parsed = if text.starts_with(VtepAddress::SCHEME) {
            text.parse().map(|vtep| vteps.push(vtep))
        } else {
            text.parse().map(|target| targets.push(target))
        };
        faults.extend(parsed.err().map(|why: Invalid| format!("{what}: {why}")));
    }
    (targets, vteps)
}

fn option<T: FromStr<Err = Invalid>>(what: &str, text: Option<&str>, faults: &mut Vec<String>) -> Option<T> {
    let parsed = text?.parse();
    parsed.map_err(|why: Invalid| faults.push(format!("{what}: {why}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{self, Cli};
    use clap::Parser;

    fn of(line: &str) -> Result<(Vec<Target>, Vec<Vtep>), Vec<String>> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let args::Command::Connect(options) = cli.command else { panic!() };
        wanted(&options)
    }

    #[test]
    fn peers_and_vteps_may_be_given_together() {
        let (targets, vteps) =
            of("rnet connect host3 vxlan://10.0.0.5 vxlan://[fd00::5]:8472 --network 10.2.1.0/24 --vni 42").unwrap();
        assert_eq!((targets.len(), vteps.len()), (1, 2));
        assert_eq!((vteps[0].local_port, vteps[1].local_port, vteps[1].vni.value()), (4789, 8472, 42));
        let line = "rnet connect vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 42 --local-port 4790";
        assert_eq!(of(line).unwrap().1[0].local_port, 4790);
        assert_eq!(of("rnet connect --replace host4").unwrap().0.len(), 1);
    }

    #[test]
    fn every_fault_is_told_in_a_line_of_its_own() {
        let facts: [(&str, &[&str]); 10] = [
            ("host1 10.0.0.256 a:b:c", &["10.0.0.256", "a:b:c"]),
            ("vxlan://10.0.0.5", &["--network CIDR --vni ID"]),
            ("vxlan://10.0.0.5 --network 10.2.1.0/24", &["--network CIDR --vni ID"]),
            ("vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 0", &["network id from 1 to 16777214"]),
            ("vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 16777216", &["network id from 1 to 16777214"]),
            ("vxlan://host5 --network 10.2.1.7/24 --vni x", &["not a name", "host bits", "network id"]),
            ("vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 1 --local-port 0", &["1 to 65535"]),
            ("host1 --vni 42", &["are for a VTEP"]),
            ("--replace vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 1", &["--replace is for peers"]),
            ("host1 --network x", &["10.2.1.0/24"]),
        ];
        for (line, faults) in facts {
            let lines = of(&format!("rnet connect {line}")).unwrap_err();
            assert_eq!(lines.len(), faults.len(), "{line}: {lines:?}");
            assert!(lines.iter().zip(faults).all(|(line, fault)| line.contains(fault)), "{line}: {lines:?}");
        }
    }
}
