//! `rnet demo`: an encrypted mesh of three hosts on this machine alone, shown and removed.
//!
//! ```text
//!   host a ---------- host b ---------- host c        a and c have no line: b relays
//!    web  10.32.1.1/24  db 10.32.1.2/24  shop 10.32.1.3/24      network 10.32.1.0/24
//!    ci   10.32.5.1/16                   test 10.32.5.3/16      network 10.32.0.0/16: overlaps as numbers, stays apart
//! ```
//!
//! The hosts are network namespaces that only this process holds (`stage`), the routers and containers are this very program,
//! and what goes between the containers is sent and timed by this process, which enters their namespaces (`traffic`). So
//! nothing else need be installed. Everything is removed at the end, after a failure, and on Ctrl-C.

mod stage;
mod traffic;

use super::{Failure, print};
use stage::{Container, Stage};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// What stands where: host, name, address.
const CAST: [(usize, &str, &str); 5] = [
    (0, "web", "10.32.1.1/24"),
    (1, "db", "10.32.1.2/24"),
    (2, "shop", "10.32.1.3/24"),
    (0, "ci", "10.32.5.1/16"),
    (2, "test", "10.32.5.3/16"),
];
const HOSTS: [&str; 3] = ["a", "b", "c"];
/// A mesh that does not carry traffic by now does not work.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for an answer on one machine; who is to stay silent is waited for that long.
const SILENCE: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_millis(1500);
const ROUND_TRIPS: usize = 1000;

type Step<T> = Result<T, String>;

/// The command; `words` is empty but for the helper that runs in the containers.
pub fn demo(words: &[String]) -> Result<(), Failure> {
    match words {
        [] => super::ask::wait("demo", run())?,
        [word] if word == traffic::SERVE => traffic::serve().map_err(|why| Failure::new("demo", why)),
        _ => Err(Failure::usage("demo", "takes no arguments")),
    }
}

/// Builds, shows, and removes in any case.
async fn run() -> Result<(), Failure> {
    let start = Instant::now();
    let mut stage = Stage::new().map_err(|why| Failure::new("demo", why))?;
    let shown = tokio::select! {
        shown = show(&mut stage) => shown.map_err(|why| Failure::new("demo", why)),
        () = interrupted() => Err(Failure { lines: vec!["demo: interrupted".into()], code: 130 }),
    };
    step("removing everything");
    let removed = stage.remove().await.map_err(|why| Failure::new("demo", why));
    shown.and(removed)?;
    print::out(&format!("\nDone in {:.1} s; nothing is left of it.\n", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Ends when somebody wants an end.
async fn interrupted() {
    async fn one(kind: SignalKind) {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    tokio::select! {
        () = one(SignalKind::interrupt()) => (),
        () = one(SignalKind::terminate()) => (),
        () = one(SignalKind::hangup()) => (),
    }
}

fn step(text: &str) {
    print::out(&format!("\n== {text}\n"));
}

async fn show(stage: &mut Stage) -> Step<()> {
    step("three hosts: a - b - c, as network namespaces; no line between a and c");
    for name in HOSTS {
        stage.host(name).await?;
    }
    stage.join(0, 1).await?;
    stage.join(1, 2).await?;

    step("a router on each, with a password");
    stage.launch(0, &[]).await?;
    stage.launch(1, &[stage.address(0, 1)?]).await?;
    stage.launch(2, &[stage.address(1, 2)?]).await?;

    step("containers in two networks whose numbers overlap: 10.32.1.0/24 and 10.32.0.0/16");
    let mut cast = Vec::new();
    for (host, name, address) in CAST {
        cast.push(stage.contain(host, name, address).await?);
    }

    step("who reaches whom");
    let right = reach(&cast).await?;
    step("how fast: TCP, one stream, encrypted");
    measure(&cast, 0, 1, "one hop").await?;
    measure(&cast, 0, 2, "relayed by b").await?;
    step("what host b says: rnet status, rnet status connections");
    print::out(&stage.status(1, &["status"]).await?);
    print::out("\n");
    print::out(&stage.status(1, &["status", "connections"]).await?);
    if right { Ok(()) } else { Err("not everybody reaches whom they should, and nobody else; see the table".into()) }
}

/// Runs blocking work off this thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Step<T> {
    tokio::task::spawn_blocking(work).await.map_err(|why| why.to_string())
}

/// Prints the table; answers whether it is as it should be.
async fn reach(cast: &[Arc<Container>]) -> Step<bool> {
    // First whom it should reach, with patience, so that later silence means something.
    let ask = |from: &Arc<Container>, to: &Arc<Container>, patience: Duration| {
        let (from, address) = (Arc::clone(from), to.ip());
        aside(move || traffic::reaches(from.namespace(), address, patience))
    };
    let mut table = vec![vec![None; cast.len()]; cast.len()];
    for expected in [true, false] {
        let patience = if expected { PATIENCE } else { SILENCE };
        let mut asked = Vec::new();
        for (i, from) in cast.iter().enumerate() {
            for (j, to) in cast.iter().enumerate().filter(|(j, to)| *j != i && from.friend_of(to) == expected) {
                asked.push((i, j, ask(from, to, patience)));
            }
        }
        let (places, answers): (Vec<_>, Vec<_>) = asked.into_iter().map(|(i, j, answer)| ((i, j), answer)).unzip();
        for ((i, j), answer) in places.into_iter().zip(all(answers).await) {
            if let Some(cell) = table.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = Some((expected, answer?));
            }
        }
    }
    print::out(&render(cast, &table));
    Ok(table.iter().flatten().flatten().all(|(expected, seen)| expected == seen))
}

/// Waits for all at the same time.
async fn all<T: Send + 'static>(futures: Vec<impl Future<Output = Step<T>> + Send + 'static>) -> Vec<Step<T>> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.unwrap_or_else(|why| Err(why.to_string())));
    }
    results
}

/// The table of expected and seen.
fn render(cast: &[Arc<Container>], table: &[Vec<Option<(bool, bool)>>]) -> String {
    let mut text = format!("{:<26}", "   from \\ to");
    cast.iter().for_each(|to| text += &format!("{:>8}", to.name));
    text.push('\n');
    for (from, row) in cast.iter().zip(table) {
        text += &format!("   {:<5} {:<13} on {} ", from.name, from.address.to_string(), from.host);
        for cell in row {
            let word = match cell {
                None => "-",
                Some((true, true)) => "yes",
                Some((false, false)) => "no",
                Some((true, false)) => "NO (!)",
                Some((false, true)) => "YES (!)",
            };
            text += &format!("{word:>8}");
        }
        text.push('\n');
    }
    let cells = || table.iter().flatten().flatten();
    let right = cells().filter(|(expected, seen)| expected == seen).count();
    text + &format!("   {right} of {} as expected: yes within a network, no between the two\n", cells().count())
}

async fn measure(cast: &[Arc<Container>], from: usize, to: usize, what: &str) -> Step<()> {
    let (Some(from), Some(to)) = (cast.get(from).cloned(), cast.get(to).cloned()) else { return Ok(()) };
    let who = format!("{} on {} to {} on {} ({what})", from.name, from.host, to.name, to.host);
    let address: IpAddr = to.ip();
    let (bits, times) = aside(move || {
        let times = traffic::round_trips(from.namespace(), address, ROUND_TRIPS)?;
        Ok((traffic::throughput(from.namespace(), address, MEASURED)?, times))
    })
    .await?
    .map_err(|why: std::io::Error| format!("measuring {who}: {why}"))?;
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, Duration::as_secs_f64) * 1e6;
    let rate = bits / 1e9;
    print::out(&format!(
        "   {who:<42} {rate:>6.2} Gbit/s   round trip {:.0} us, 99 % under {:.0} us\n",
        at(50),
        at(99)
    ));
    Ok(())
}
