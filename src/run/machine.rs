//! The tasks that change this machine and tell what happens on it.
//!
//! Changes are made one after the other, in the order in which the node asked for them, beside control: a slow kernel
//! delays no link. Capture ports and doors that come and go are handed straight to the data path; the rest is told to control.

use super::Happening;
use super::datapath::Hands;
use crate::host::{Host, HostEvent};
use crate::io::clock::Clock;
use crate::node::border::{HostId, HostOp};
use crate::plane::Event;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};

/// Makes changes until control has ended.
pub async fn change(mut host: Host, mut ops: UnboundedReceiver<(HostId, HostOp)>, happenings: Sender<Happening>) {
    while let Some((id, op)) = ops.recv().await {
        tracing::debug!("machine: {op:?}");
        let result = host.apply(op).await;
        if happenings.send(Happening::Machine(id, result)).await.is_err() {
            return;
        }
    }
}

/// The addresses of this machine, to be told at the start too. None where the kernel does not say.
pub fn own_addresses() -> Happening {
    let all = crate::io::own::addresses().inspect_err(|why| tracing::warn!("addresses of this machine: {why}"));
    Happening::Addresses(all.unwrap_or_default())
}

/// Tells what happens until the host has ended.
pub async fn notice(
    mut events: UnboundedReceiver<HostEvent>,
    hands: Hands,
    clock: Clock,
    happenings: Sender<Happening>,
) {
    while let Some(event) = events.recv().await {
        let happening = match event {
            HostEvent::Opened { port, captures } => {
                hands.open(port, captures);
                continue;
            }
            HostEvent::Closed { port } => {
                hands.close(port);
                continue;
            }
            HostEvent::DoorOpened { door, sockets, senders } => {
                hands.open_door(door, sockets, senders);
                continue;
            }
            HostEvent::DoorClosed { door } => {
                hands.close_door(door);
                continue;
            }
            HostEvent::Uplink { port, state } => Happening::Uplink(port, state),
            HostEvent::Beat { from, datagram, size, turn } => {
                let at = clock.now();
                let told = happenings.send(Happening::Event(Event::Beat { from, datagram, size, at })).await;
                drop(turn);
                if told.is_err() {
                    return;
                }
                continue;
            }
            HostEvent::OffloadLost { id } => Happening::OffloadLost(id),
            HostEvent::VxlanGone => Happening::VxlanGone,
            HostEvent::RouteMtu { port, mtu } => Happening::RouteMtu(port, mtu),
            HostEvent::CaptureGone { port } => Happening::CaptureGone(port),
            HostEvent::AttachmentGone { key } => Happening::Gone(key),
            HostEvent::NetworkChanged => {
                if happenings.send(own_addresses()).await.is_err() {
                    return;
                }
                Happening::NetworkChanged
            }
        };
        if happenings.send(happening).await.is_err() {
            return;
        }
    }
}

/// Tells the first and every further SIGTERM or SIGINT, and ignores SIGHUP: whoever closes the terminal does not mean us.
pub async fn signals(happenings: Sender<Happening>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => continue,
        }
        if happenings.send(Happening::Signal).await.is_err() {
            return Ok(());
        }
    }
}
