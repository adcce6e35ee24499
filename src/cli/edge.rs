//! The way in and out of the mesh: `expose`, `hide`, `publish`, `unpublish`.
//!
//! Words are parsed here, every fault of them told at once; what may be is the router's decision.

use super::args::{Addresses, Expose, Ports, Router};
use super::{Failure, ask};
use crate::ipam::WaitingStatus;
use crate::node::command::{Command, HOST_KEY};
use crate::types::PortMap;

/// `rnet expose`.
pub fn expose(router: &Router, options: &Expose) -> Result<(), Failure> {
    let addresses = ask::addresses("expose", &options.addresses)?;
    let masquerade = !options.without_masquerade;
    let client = ask::client("expose", router)?;
    let mine = |waiting: &WaitingStatus| waiting.key.as_deref() == Some(HOST_KEY);
    let asked = ask::ask_patiently("expose", &client, Command::Expose { addresses, masquerade }, mine);
    let reply = ask::wait("expose", asked)?.map_err(|why| ask::trouble("expose", &why))?;
    ask::print_addresses(&reply);
    Ok(())
}

/// `rnet hide`.
pub fn hide(router: &Router, options: &Addresses) -> Result<(), Failure> {
    // No address means all of them here, and needs no allocation.
    let texts = &options.addresses;
    let addresses = if texts.is_empty() { Vec::new() } else { ask::addresses("hide", texts)? };
    let reply = ask::ask("hide", router, Command::Hide { addresses })?;
    ask::print_addresses(&reply);
    Ok(())
}

/// `rnet publish`.
pub fn publish(router: &Router, options: &Ports) -> Result<(), Failure> {
    let (ports, target) = ports("publish", &options.words)?;
    if ports.is_empty() {
        return Err(Failure::usage(
            "publish",
            format!("which port is to lead to {target}? HOSTPORT:PORT[/udp] {target}"),
        ));
    }
    change("publish", router, target, |key| Command::Publish { key, ports })
}

/// `rnet unpublish`.
pub fn unpublish(router: &Router, options: &Ports) -> Result<(), Failure> {
    let (ports, target) = ports("unpublish", &options.words)?;
    change("unpublish", router, target, |key| Command::Unpublish { key, ports })
}

fn change(what: &str, router: &Router, target: &str, command: impl FnOnce(String) -> Command) -> Result<(), Failure> {
    let client = ask::client(what, router)?;
    ask::wait(what, async {
        let key = ask::find_here(what, &client, target).await?.key;
        client.ask(command(key)).await.map(drop).map_err(|why| ask::trouble(what, &why))
    })?
}

/// Ports, then the target.
fn ports<'a>(what: &str, words: &'a [String]) -> Result<(Vec<PortMap>, &'a str), Failure> {
    let (texts, target) = ask::split(words);
    let (good, bad): (Vec<_>, Vec<_>) = texts.iter().map(|text| text.parse::<PortMap>()).partition(Result::is_ok);
    let lines: Vec<String> = bad.into_iter().filter_map(Result::err).map(|why| format!("{what}: {why}")).collect();
    if lines.is_empty() { Ok((good.into_iter().flatten().collect(), target)) } else { Err(Failure { lines, code: 2 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_before_the_target_and_every_fault_is_told() {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let given = words(&["8091:8090", "53:53/udp", "web"]);
        let (maps, target) = ports("publish", &given).unwrap();
        assert_eq!((maps.len(), target), (2, "web"));
        let failure = ports("publish", &words(&["8091", "x:1", "web"])).unwrap_err();
        assert_eq!((failure.lines.len(), failure.code), (2, 2));
    }
}
