//! The steps of a frame's way that more than one verdict needs: answer, write, cut, flood, arrive, deliver.
//!
//! Each step counts what it did; what it could not do it returns as the reason, which `Batch` counts. Where a frame goes was
//! decided by `switch`; the order of the steps is in `Plane`.

use super::fib::{PathId, PortId};
use super::macs::{Learned, Place};
use super::path::Path;
use super::{Drop, Sink, Way, fragment, guard, neighbours};
use crate::types::{Mac, NetId};
use crate::wire::datagram::{Fragment, Inner};
use crate::wire::frame::{Frame, HEADER_LEN};
use crate::wire::neighbour::{self, Question};

impl<S: Sink> Way<'_, S> {
    pub(super) fn learn(&mut self, network: NetId, mac: Mac, place: Place) {
        if self.plane.macs.learn(network, mac, place, self.now) == Learned::Refused {
            self.tally.unlearned += 1;
        }
    }

    /// Answers a question for an address that is known. Goes on with what the guard said of the frame if it asks nothing,
    /// or if others have to answer.
    ///
    /// A refused probe is answered too: whoever wants an address that another has must hear so, or takes it.
    pub(super) fn ask(
        &mut self,
        port: PortId,
        network: NetId,
        frame: &Frame<'_>,
        checked: Result<(), Drop>,
    ) -> Result<(), Drop> {
        let heard = |question: &Question| match checked {
            Ok(()) => true,
            Err(reason) => reason == Drop::GuardAddress && question.is_probe(),
        };
        let Some(question) = neighbour::question(frame).filter(heard) else { return checked };
        let answer =
            neighbours::answers(self.fib, network, &question).and_then(|mac| neighbour::answer(&question, mac));
        let Some(answer) = answer else { return checked };
        self.deliver(port, &answer);
        checked.and(Err(Drop::Suppressed))
    }

    /// Writes one datagram.
    pub(super) fn send(&mut self, path: &Path, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        path.write(inner, payload, self.out)?;
        self.tally.to_net.add(payload.len());
        Ok(())
    }

    /// Writes as many datagrams as it takes.
    pub(super) fn send_all(&mut self, path: &Path, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        match self.send(path, inner, payload) {
            Err(Drop::TooBig) => self.send_pieces(path, inner, payload),
            sent => sent,
        }
    }

    fn send_pieces(&mut self, path: &Path, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        let whole = || Fragment { id: self.plane.fragment_id(self.fib.me), offset: 0, more: false };
        let of = inner.fragment.unwrap_or_else(whole);
        for (fragment, range) in fragment::pieces(of, payload.len(), path.fragment_room())? {
            let piece = payload.get(range).ok_or(Drop::BadFragment)?;
            // The MTU may have shrunk since `room` was asked: once more is no better, so the frame is lost.
            self.send(path, &Inner { fragment: Some(fragment), ..*inner }, piece).map_err(|reason| match reason {
                Drop::TooBig => Drop::NoRoom,
                reason => reason,
            })?;
        }
        Ok(())
    }

    /// A captured frame does not fit: the sender is told, or it goes in pieces.
    pub(super) fn too_big(&mut self, from: PortId, frame: &Frame<'_>, path: &Path, inner: &Inner) -> Result<(), Drop> {
        let mut reply = [0; fragment::REPLY_MAX];
        let mtu = path.room().saturating_sub(HEADER_LEN);
        match fragment::too_big(frame, mtu, &mut reply).and_then(|length| reply.get(..length)) {
            Some(reply) => {
                self.deliver(from, reply);
                Err(Drop::TooBig)
            }
            None => self.send_pieces(path, inner, frame.bytes()),
        }
    }

    /// Hands a frame on along the tree of its origin, but not back to where it came from. Returns how many neighbours
    /// there are to have it; what does not get through to one of them is counted and does not keep it from the others.
    pub(super) fn flood(&mut self, inner: &Inner, payload: &[u8], came: Option<PathId>) -> usize {
        let mut hops = self.fib.floods.next_hops(inner.origin, inner.network);
        hops.retain(|path| Some(path.id()) != came);
        for path in &hops {
            if let Err(reason) = self.send_all(path, inner, payload) {
                self.tally.drop(reason);
            }
        }
        hops.len()
    }

    /// A frame, or a piece of one, is at its destination.
    pub(super) fn arrive(&mut self, port: PortId, came: &Path, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        let Some(fragment) = inner.fragment else {
            return self.accept(port, inner, payload);
        };
        let now = self.now;
        let mut accepted = Ok(());
        let (piece, lost) =
            came.reassemble((inner, fragment, payload), now, |frame| accepted = self.accept(port, inner, frame));
        self.tally.drops_of(Drop::FragmentLost, lost);
        piece.and(accepted)
    }

    /// A whole frame is at its destination.
    fn accept(&mut self, port: PortId, inner: &Inner, bytes: &[u8]) -> Result<(), Drop> {
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        let entry = self.fib.networks.get(&inner.network).ok_or(Drop::NotOpen)?;
        if frame.dst().is_link_local() {
            return Err(Drop::LinkLocal);
        }
        guard::check_arrival(entry, &frame)?;
        // From an origin that the topology does not know (yet) nothing is learned: no answer could go there, and the
        // table stays bounded by the peers that there are.
        if self.fib.next_hops.contains_key(&inner.origin) {
            self.learn(inner.network, frame.src(), Place::Peer(inner.origin));
        }
        self.deliver(port, bytes);
        Ok(())
    }

    pub(super) fn deliver(&mut self, port: PortId, frame: &[u8]) {
        self.tally.to_bridge.add(frame.len());
        self.out.deliver(port, frame);
    }
}
