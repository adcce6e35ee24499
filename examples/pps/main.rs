//! Small packets between two network namespaces of this machine: how many get through, and how long they take.
//!
//! `bench/` measures with it, and it serves by hand: one JSON line on standard output says what was seen.
//!
//! ```text
//! pps flood    --from A --to B --address 10.2.1.2                   as many as go: how many arrive
//! pps rate     --from A --to B --address 10.2.1.2 --rate 100000     at this pace: how many are lost
//! pps search   --from A --to B --address 10.2.1.2 --loss 0.5        the highest pace that loses no more percent than this
//! pps pingpong --from A --to B --address 10.2.1.2 --pin             round-trip times, one packet after the other
//! ```

#![forbid(unsafe_code)]
// A program that measures asks the clock and sleeps.
#![allow(clippy::disallowed_methods)]

mod search;
mod traffic;

use clap::{Parser, ValueEnum};
use search::{Goal, Trial};
use serde_json::{Value, json};
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use traffic::{Route, SIZES, namespace};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Flood,
    Rate,
    Search,
    Pingpong,
}

/// Small packets between two network namespaces of this machine, counted or timed; prints one JSON line
#[derive(Debug, Parser)]
struct Options {
    mode: Mode,
    /// Namespace of the sender: a name in /run/netns, or a path
    #[arg(long)]
    from: String,
    /// Namespace of the receiver
    #[arg(long)]
    to: String,
    /// Address of the receiver
    #[arg(long)]
    address: IpAddr,
    /// Payload of each datagram, bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Packets per second of `rate`
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Percent that `search` lets be lost
    #[arg(long, default_value_t = 0.5)]
    loss: f64,
    /// Microseconds between an answer and the next question of `pingpong`
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Keep the two ends of `pingpong` on a processor each
    #[arg(long)]
    pin: bool,
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(seen) => {
            println!("{seen}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("pps: {e}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<Value> {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    if !SIZES.contains(&options.size) {
        return Err(io::Error::other(format!("--size must be {} to {}", SIZES.start(), SIZES.end())));
    }
    if !positive(options.seconds) || !positive(options.rate) {
        return Err(io::Error::other("--seconds and --rate must be above 0"));
    }
    let (from, to) = (namespace(&options.from)?, namespace(&options.to)?);
    let route = Route { from, to, address: options.address, size: options.size };
    let seconds = options.seconds;
    match options.mode {
        Mode::Flood => route.counted(|sender| sender.send(0.0, seconds)).map(counted),
        Mode::Rate => route.counted(|sender| sender.send(options.rate, seconds)).map(counted),
        Mode::Search => {
            let goal = Goal { loss: options.loss / 100.0, seconds };
            let best = route.counted(|sender| search::highest(goal, |rate, seconds| sender.send(rate, seconds)))?;
            best.map(counted).ok_or_else(|| io::Error::other("no rate gets through with so little loss"))
        }
        Mode::Pingpong => {
            // What is learned on the way is not timed.
            route.there_and_back(0.2, Duration::ZERO, options.pin)?;
            let pause = Duration::from_micros(options.pause);
            let (times, lost) = route.there_and_back(seconds, pause, options.pin)?;
            timed(&times, lost).ok_or_else(|| io::Error::other("no answer"))
        }
    }
}

fn counted(trial: Trial) -> Value {
    json!({
        "sent_pps": trial.sent_rate().round(),
        "received_pps": trial.received_rate().round(),
        "loss_percent": (trial.loss() * 100_000.0).round() / 1000.0,
        "sent": trial.sent,
        "received": trial.received,
        "seconds": trial.seconds,
    })
}

fn timed(sorted: &[Duration], lost: u64) -> Option<Value> {
    let at = |part: f64| {
        let rank = (sorted.len() as f64 * part).ceil() as usize;
        sorted.get(rank.max(1) - 1).map(|time| time.as_nanos() as f64 / 1000.0)
    };
    Some(json!({
        "answered": sorted.len(),
        "lost": lost,
        "min_us": at(0.0)?,
        "p50_us": at(0.5)?,
        "p90_us": at(0.9)?,
        "p99_us": at(0.99)?,
        "max_us": at(1.0)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_times_that_were_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        let seen = timed(&times, 3).unwrap();
        let of = |name: &str| seen.get(name).and_then(Value::as_f64).unwrap();
        assert_eq!((of("min_us"), of("p50_us"), of("p99_us"), of("max_us")), (1.0, 100.0, 198.0, 200.0));
        assert_eq!(of("lost"), 3.0);
        assert_eq!(timed(&[], 1), None);
    }
}
