//! Commands that ask a running router and print its answer.

use super::args::{Attach, Detach, Peers, Ps, Router, Status, View};
use super::{Failure, print, sources};
use crate::api::client::{Client, Trouble};
use crate::api::report;
use crate::docker;
use crate::ipam::WaitingStatus;
use crate::node::command::{self, Attachment, Command, Place, Reply};
use crate::types::{AddressRequest, Invalid, NetId, parse_requests};
use std::future::Future;
use std::time::Duration;

/// After how long it is told what a command waits for, and how often it is looked at again.
const MOMENT: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(1);

/// Runs a future on a runtime of its own: the command line needs one for a question only.
pub fn wait<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|why| Failure::new(what, why))?.block_on(future))
}

/// The client of the router that is meant.
pub fn client(what: &str, router: &Router) -> Result<Client, Failure> {
    Ok(Client::new(&sources::directories(what, router)?.0))
}

/// What went wrong, in the voice of the command line. A refusal of the router tells its own `<what>`.
pub fn trouble(what: &str, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Refused(line) => Failure { lines: vec![line.clone()], code: 1 },
        other => Failure::new(what, other),
    }
}

pub fn ask(what: &str, router: &Router, command: Command) -> Result<Reply, Failure> {
    let client = client(what, router)?;
    wait(what, client.ask(command))?.map_err(|why| trouble(what, &why))
}

/// The same of what is done in any case: that there was nothing to do goes to standard error.
pub fn ask_idly(what: &str, router: &Router, command: Command) -> Result<(), Failure> {
    if let Reply::Told(lines) = ask(what, router, command)? {
        lines.iter().for_each(|line| print::error(line));
    }
    Ok(())
}

fn view(what: &str, router: &Router) -> Result<Box<crate::node::status::Status>, Failure> {
    let client = client(what, router)?;
    wait(what, client.status())?.map_err(|why| trouble(what, &why))
}

/// The address grammar.
pub fn addresses(what: &str, texts: &[String]) -> Result<Vec<AddressRequest>, Failure> {
    parse_requests(texts).map_err(|why: Invalid| Failure::usage(what, why))
}

/// Asks what may have to wait for other hosts. After a moment it says on standard error what it waits for, and again when
/// that changes; `mine` tells which of the waiting requests are meant.
pub async fn ask_patiently(
    what: &str,
    client: &Client,
    command: Command,
    mine: impl Fn(&WaitingStatus) -> bool,
) -> Result<Reply, Trouble> {
    let mut answer = std::pin::pin!(client.ask(command));
    let mut told = String::new();
    let mut pause = MOMENT;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(pause) => {}
        }
        pause = LATER;
        let status = tokio::select! {
            answer = &mut answer => return answer,
            status = client.status() => status?,
        };
        let waiting = status.ipam.iter().flat_map(|ipam| &ipam.waiting).find(|waiting| mine(waiting));
        let why = match waiting {
            Some(waiting) => format!("{} is waited for: {}", waiting.what, waiting.why),
            None => status.ipam.filter(|ipam| !ipam.ready).map(|ipam| ipam.state).unwrap_or_default(),
        };
        if !why.is_empty() && why != told {
            print::error(&format!("{what}: {why}"));
            told = why;
        }
    }
}

/// `rnet prime`.
pub fn prime(router: &Router) -> Result<(), Failure> {
    let client = client("prime", router)?;
    let mine = |waiting: &WaitingStatus| waiting.what == "prime";
    wait("prime", ask_patiently("prime", &client, Command::Prime, mine))?
        .map_err(|why| trouble("prime", &why))
        .map(drop)
}

/// `rnet rmpeer`.
pub fn rmpeer(router: &Router, options: &Peers) -> Result<(), Failure> {
    let client = client("rmpeer", router)?;
    let mine = |waiting: &WaitingStatus| waiting.what.starts_with("rmpeer ");
    let command = Command::Rmpeer { peers: options.peers.clone() };
    let reply = wait("rmpeer", ask_patiently("rmpeer", &client, command, mine))?;
    if let Reply::Told(lines) = reply.map_err(|why| trouble("rmpeer", &why))? {
        print::out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    Ok(())
}

/// `rnet attach`.
pub fn attach(router: &Router, options: &Attach) -> Result<(), Failure> {
    let (texts, target) = split(&options.words);
    let addresses = addresses("attach", texts)?;
    let vni = options.vni.as_deref().map(str::parse::<NetId>).transpose();
    let vni = vni.map_err(|why| Failure::usage("attach", format!("--vni: {why}")))?;
    let client = client("attach", router)?;
    let reply = wait("attach", async {
        let found = find_here("attach", &client, target).await?;
        let name = options.name.clone().or(found.name);
        let (key, place, unguarded) = (found.key, found.place, options.no_guard || found.unguarded);
        let (gateway, masquerade, publish) = (options.gateway, false, Vec::new());
        let mine = |waiting: &WaitingStatus| waiting.key.as_ref() == Some(&key);
        let attach =
            command::Attach { key: key.clone(), name, place, addresses, unguarded, vni, gateway, masquerade, publish };
        ask_patiently("attach", &client, Command::Attach(attach), mine).await.map_err(|why| trouble("attach", &why))
    })??;
    print_addresses(&reply);
    Ok(())
}

/// `rnet detach`. A container that is gone is looked for among the attachments.
pub fn detach(router: &Router, options: &Detach) -> Result<(), Failure> {
    let (texts, target) = split(&options.words);
    // No address means all of its addresses here, and needs no allocation.
    let addresses = if texts.is_empty() { Vec::new() } else { addresses("detach", texts)? };
    let client = client("detach", router)?;
    let reply = wait("detach", async {
        let key = find_here("detach", &client, target).await?.key;
        client.ask(Command::Detach { key, addresses }).await.map_err(|why| trouble("detach", &why))
    })??;
    print_addresses(&reply);
    Ok(())
}

pub fn split(words: &[String]) -> (&[String], &str) {
    words.split_last().map_or((&[], ""), |(target, texts)| (texts, target.as_str()))
}

/// What a TARGET means.
#[derive(Debug)]
pub struct Found {
    /// What the router knows it by.
    pub key: String,
    /// What people call it.
    pub name: Option<String>,
    /// Where it is.
    pub place: Place,
    /// It is attached, without the port guard.
    pub unguarded: bool,
}

/// Finds what a TARGET means: an attachment of this name or key first, else as `find` does.
pub async fn find_here(what: &str, client: &Client, target: &str) -> Result<Found, Failure> {
    let status = client.status().await.map_err(|why| trouble(what, &why))?;
    let exact = |attachment: &&Attachment| attachment.key == target;
    let meant = |attachment: &&Attachment| report::is_meant(attachment, target);
    let known: Vec<&Attachment> = match status.attachments.iter().find(exact) {
        Some(attachment) => vec![attachment],
        None => status.attachments.iter().filter(meant).collect(),
    };
    match known.as_slice() {
        [] => find(target).await.map_err(|why| Failure::new(what, why)),
        [Attachment { key, name, place, unguarded, .. }] => {
            Ok(Found { key: key.clone(), name: name.clone(), place: place.clone(), unguarded: *unguarded })
        }
        several => {
            let keys: Vec<&str> = several.iter().map(|attachment| attachment.key.as_str()).collect();
            Err(Failure::new(what, format!("{target}: several are called so: say which: {}", keys.join(", "))))
        }
    }
}

/// Finds what a TARGET means: `pid:N`, `netns:NAME` or `netns:PATH`, else a container's name or id.
async fn find(target: &str) -> Result<Found, String> {
    if let Some(digits) = target.strip_prefix("pid:") {
        let pid = digits.parse::<i32>().ok().filter(|pid| *pid > 0 && !digits.starts_with('+'));
        let pid = pid.ok_or_else(|| format!("{target:?} is not a process: pid:N"))?;
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            return Err(format!("{target}: there is no such process"));
        }
        return Ok(Found { key: format!("pid:{pid}"), name: None, place: Place::Pid(pid), unguarded: false });
    }
    if let Some(name) = target.strip_prefix("netns:") {
        let path = if name.contains('/') { name.to_string() } else { format!("/run/netns/{name}") };
        if name.is_empty() || !path.starts_with('/') || name == ".." {
            return Err(format!("{target:?} is not a namespace: netns:NAME, or netns:/PATH"));
        }
        if !std::path::Path::new(&path).exists() {
            return Err(format!("{target}: there is no {path}"));
        }
        return Ok(Found { key: target.to_string(), name: None, place: Place::Path(path), unguarded: false });
    }
    container(target).await
}

async fn container(target: &str) -> Result<Found, String> {
    let engine = std::env::var("DOCKER_HOST").ok();
    let found = async { docker::inspect(&docker::socket(engine.as_deref())?, target).await };
    let found = found.await.map_err(|why: docker::DockerError| why.to_string())?;
    Ok(Found { key: found.id, name: Some(found.name), place: Place::Pid(found.pid), unguarded: false })
}

/// The addresses of an attachment, as `attach` and `detach` print them: without prefix lengths, on one line.
pub fn print_addresses(reply: &Reply) {
    let Reply::Attached(Attachment { interfaces, .. }) = reply else { return };
    let all = interfaces.iter().flat_map(|interface| &interface.addresses);
    let texts: Vec<String> = all.map(|address| address.ip().to_string()).collect();
    if !texts.is_empty() {
        print::out(&(texts.join(" ") + "\n"));
    }
}

/// `rnet ps`.
pub fn ps(router: &Router, options: &Ps) -> Result<(), Failure> {
    let status = view("ps", router)?;
    let meant = |attachment: &&Attachment| {
        options.targets.is_empty() || options.targets.iter().any(|wanted| report::is_meant(attachment, wanted))
    };
    let listed: Vec<&Attachment> = status.attachments.iter().filter(meant).collect();
    if options.json {
        let json = serde_json::to_string_pretty(&listed).map_err(|why| Failure::new("ps", why))?;
        print::out(&(json + "\n"));
    } else {
        print::out(&report::attachments(listed.iter().copied()));
    }
    let missing =
        options.targets.iter().filter(|wanted| !listed.iter().any(|attachment| report::is_meant(attachment, wanted)));
    let lines: Vec<String> = missing.map(|wanted| format!("ps: {wanted}: is not attached here")).collect();
    if lines.is_empty() { Ok(()) } else { Err(Failure { lines, code: 1 }) }
}

/// `rnet status`.
pub fn status(router: &Router, options: &Status) -> Result<(), Failure> {
    let status = view("status", router)?;
    let view = match options.view {
        Some(View::Connections) => report::View::Connections,
        Some(View::Peers) => report::View::Peers,
        Some(View::Targets) => report::View::Targets,
        Some(View::Networks) => report::View::Networks,
        Some(View::Ipam) => report::View::Ipam,
        Some(View::Dns) | None => report::View::Summary,
    };
    if options.json {
        print::out(&report::json(&status, view).map_err(|why| Failure::new("status", why))?);
    } else {
        print::out(&report::text(&status, view));
    }
    Ok(())
}

/// `rnet report`.
pub fn report(router: &Router) -> Result<(), Failure> {
    let status = view("report", router)?;
    print::out(&report::json(&status, report::View::Summary).map_err(|why| Failure::new("report", why))?);
    Ok(())
}

/// `rnet version`: of this program, and of the router if one runs.
pub fn version(router: &Router) -> Result<(), Failure> {
    print::out(&format!("rnet {}\n", env!("CARGO_PKG_VERSION")));
    if let Ok(status) = view("version", router) {
        print::out(&format!("router {}\n", status.version));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_the_router_is_asked() {
        let of = |texts: &[&str]| addresses("run", &texts.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["10.2.1.1/24 fd00::1/64"]).unwrap().len(), 2);
        assert_eq!(of(&["none"]).unwrap().len(), 0);
        assert_eq!(of(&[]).unwrap(), [AddressRequest::NetDefault]);
        assert_eq!(of(&["10.2.1.0/24"]).unwrap_err().code, 2);
    }

    #[test]
    fn pid_and_namespace_targets_are_checked_before_the_router_is_asked() {
        let find = |target: &str| wait("attach", find(target)).unwrap();
        let me = format!("pid:{}", std::process::id());
        assert!(matches!(find(&me).unwrap().place, Place::Pid(_)));
        assert!(matches!(find("netns:/proc/self/ns/net").unwrap().place, Place::Path(_)));
        for target in ["pid:0", "pid:+1", "pid:x", "pid:2147483647", "netns:", "netns:no-such-name", "netns:../x"] {
            assert!(find(target).is_err(), "{target}");
        }
    }
}
