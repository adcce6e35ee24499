//! One neighbour's datagram path: its keys, its address, its MTU. Writes datagrams and opens them.
//!
//! Created and steered by control (`install`, `activate`, `retire`, the setters), used by all data path threads at once. It decides
//! nothing about frames, and it learns nothing from datagrams: where to send is what control says.
//!
//! ```text
//! install(e)            activate(e)                     retire(e)
//!    |  opened, not sealed  |  opened and sealed            |  unknown
//!    |                      |  the older epoch: opened -----|
//! ```
//!
//! All that control sets is one immutable state behind an arc-swap, so a datagram is written under one consistent
//! set of key, address and MTU, at the price of one load. What threads write is an atomic (the counter of the next
//! seal) and the replay window's mutex, taken for nanoseconds and never across a seal. Invariant: a counter is
//! never used twice under one key, and a datagram that does not open changes nothing here.
//!
//! A path begins sealed and not ready: data goes out only after `set_ready(true)`, in clear only after `set_sealed(false)`.

use super::counters::Drop;
use super::fib::PathId;
use super::fragment::{Key, Reassembly};
use super::vxlan::{Carrier, End};
use super::{Service, Sink};
use crate::crypto::keys::EpochKeys;
use crate::crypto::replay::{Arrivals, Window};
use crate::crypto::seal::{Cipher, Opener, Sealer};
use crate::types::{Instant, ShortId};
use crate::wire::datagram::{Fragment, INNER_LEN, Inner, Kind, OUTER_LEN, Outer, TAG_LEN};
use arc_swap::{ArcSwap, Guard};
use smallvec::SmallVec;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The UDP payload that is taken to get through before one is proven: what every host takes over IPv4 (RFC 791), 576 bytes
/// less the headers.
pub const MTU_SURE: u16 = 548;

/// Below this (IPv6's least underlay) each datagram is sent alone: filters of this host that drop by size see the whole GSO
/// packet and not what it is cut into, and on such a path there is little to gain by one.
const MTU_ALONE: u16 = 1280 - 48;

/// Datagrams under one key at most. Control replaces keys at 2^32; this is the wall behind it, far inside what AES-GCM
/// with a counter as its nonce allows (NIST SP 800-38D, and 2^34 datagrams of 1,500 bytes are 2^41 blocks).
pub const SEALS_MAX: u64 = 1 << 34;

/// Epochs that are opened at a time; control needs two.
const EPOCHS_MAX: usize = 4;

/// New keys for a path, as the exchange on the link agreed on them.
pub struct Epoch {
    /// Its number, in every datagram.
    pub number: u16,
    /// What seals.
    pub cipher: Cipher,
    /// One key per direction.
    pub keys: EpochKeys,
    /// The receiver index in datagrams to us.
    pub our_index: u32,
    /// The receiver index in datagrams to the neighbour.
    pub their_index: u32,
}

struct Keys {
    number: u16,
    cipher: Cipher,
    our_index: u32,
    their_index: u32,
    sealer: Sealer,
    opener: Opener,
    sealed: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Clone)]
struct State {
    endpoint: Option<SocketAddr>,
    sealed: bool,
    ready: bool,
    mtu: u16,
    limit_known: bool,
    carrier: Carrier,
    active: Option<Arc<Keys>>,
    epochs: SmallVec<[Arc<Keys>; EPOCHS_MAX]>,
}

/// See the head of this file.
pub struct Path {
    id: PathId,
    /// Apart from the state: read for each frame that goes out.
    peer: AtomicU16,
    /// A frame came in on it since control last looked.
    carried: AtomicBool,
    state: ArcSwap<State>,
    partials: Mutex<Reassembly>,
    /// What the kernel could carry is told of: beside the state, since it is asked for each frame.
    for_kernel: AtomicBool,
}

/// Control's side.
impl Path {
    /// A path to `peer` without keys or address: sealed, not ready, of the MTU that is sure.
    pub fn new(id: PathId, peer: ShortId) -> Path {
        let epochs = SmallVec::new();
        let state = State {
            endpoint: None,
            sealed: true,
            ready: false,
            mtu: MTU_SURE,
            limit_known: false,
            carrier: Carrier::Udp,
            active: None,
            epochs,
        };
        Path {
            id,
            peer: AtomicU16::new(peer.0),
            carried: AtomicBool::new(false),
            state: ArcSwap::from_pointee(state),
            partials: Mutex::default(),
            for_kernel: AtomicBool::new(false),
        }
    }

    fn change(&self, change: impl Fn(&mut State)) {
        self.state.rcu(|state| {
            let mut state = State::clone(state);
            change(&mut state);
            state
        });
    }

    /// Its number, for its whole life.
    pub fn id(&self) -> PathId {
        self.id
    }

    /// The neighbour's number.
    pub fn peer(&self) -> ShortId {
        ShortId(self.peer.load(Ordering::Relaxed))
    }

    /// The neighbour took another number.
    pub fn set_peer(&self, peer: ShortId) {
        self.peer.store(peer.0, Ordering::Relaxed);
    }

    /// Whether a frame came in since this was last asked.
    pub fn take_carried(&self) -> bool {
        self.carried.swap(false, Ordering::Relaxed)
    }

    /// From now on datagrams of this epoch are opened. An epoch of the same number is replaced; of more than four the oldest
    /// one that is not active goes.
    pub fn install(&self, epoch: Epoch) {
        let keys = Arc::new(Keys {
            number: epoch.number,
            cipher: epoch.cipher,
            our_index: epoch.our_index,
            their_index: epoch.their_index,
            sealer: Sealer::new(epoch.cipher, &epoch.keys.seal),
            opener: Opener::new(epoch.cipher, &epoch.keys.open),
            sealed: AtomicU64::new(0),
            window: Mutex::new(Window::new()),
        });
        self.change(|state| {
            state.epochs.retain(|old| old.number != keys.number);
            if state.epochs.len() >= EPOCHS_MAX {
                let active = state.active.as_ref().map(|active| active.number);
                let oldest = state.epochs.iter().position(|old| Some(old.number) != active);
                oldest.map(|index| state.epochs.remove(index));
            }
            state.epochs.push(keys.clone());
        });
    }

    /// From now on datagrams are sealed with this epoch. Nothing happens if it is not installed.
    pub fn activate(&self, epoch: u16) {
        self.change(|state| {
            if let Some(keys) = state.epochs.iter().find(|keys| keys.number == epoch) {
                state.active = Some(keys.clone());
            }
        });
    }

    /// From now on datagrams of this epoch are not opened any more, nor sealed with it.
    pub fn retire(&self, epoch: u16) {
        self.change(|state| {
            state.epochs.retain(|keys| keys.number != epoch);
            state.active.take_if(|keys| keys.number == epoch);
        });
    }

    /// Our receiver indexes of the epochs that are opened.
    pub fn indexes(&self) -> SmallVec<[u32; 2]> {
        self.state.load().epochs.iter().map(|keys| keys.our_index).collect()
    }

    /// The epoch that datagrams are sealed with.
    pub fn epoch(&self) -> Option<u16> {
        self.state.load().active.as_ref().map(|keys| keys.number)
    }

    /// What frames are sealed with; nothing where they go in clear.
    pub fn cipher(&self) -> Option<Cipher> {
        let state = self.state.load();
        state.active.as_ref().filter(|_| state.sealed).map(|keys| keys.cipher)
    }

    /// Datagrams written so far in the active epoch.
    pub fn counter(&self) -> u64 {
        self.state.load().active.as_ref().map_or(0, |keys| keys.sealed.load(Ordering::Relaxed))
    }

    /// What of the neighbour's sealed datagrams arrived, of those that had time to since this was last called, and what did not.
    /// Nothing in clear: those datagrams have counters, and no place in the window.
    pub fn arrivals(&self) -> Option<Arrivals> {
        let state = self.state.load();
        let judged = state.epochs.iter().filter(|_| state.sealed).map(|keys| keys.window().judge());
        judged.reduce(|sum, epoch| Arrivals { arrived: sum.arrived + epoch.arrived, lost: sum.lost + epoch.lost })
    }

    /// Where datagrams go, and whence those in clear must come.
    pub fn set_endpoint(&self, endpoint: SocketAddr) {
        self.change(|state| state.endpoint = Some(endpoint));
    }

    /// See [`Path::set_endpoint`].
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.state.load().endpoint
    }

    /// False: frames go in clear, and are taken in clear from the endpoint. Probes are sealed in any case. A path that is sealed from
    /// now on has no VXLAN.
    pub fn set_sealed(&self, sealed: bool) {
        self.change(|state| state.sealed = sealed);
        self.set_carrier(self.carrier());
    }

    /// See [`Path::set_sealed`].
    pub fn is_sealed(&self) -> bool {
        self.state.load().sealed
    }

    /// True: both ends have proved the path, data may go out.
    pub fn set_ready(&self, ready: bool) {
        self.change(|state| state.ready = ready);
    }

    /// See [`Path::set_ready`].
    pub fn is_ready(&self) -> bool {
        self.state.load().ready
    }

    /// The largest UDP payload that gets through, bytes: nothing larger does, so senders may be told of it.
    pub fn set_mtu(&self, mtu: u16) {
        self.change(|state| (state.mtu, state.limit_known) = (mtu, true));
    }

    /// A UDP payload that gets through, while larger ones are still tried; 0: none yet, [`MTU_SURE`] is taken.
    pub fn set_mtu_so_far(&self, mtu: u16) {
        self.change(|state| (state.mtu, state.limit_known) = (if mtu == 0 { MTU_SURE } else { mtu }, false));
    }

    /// See [`Path::set_mtu`].
    pub fn mtu(&self) -> u16 {
        self.state.load().mtu
    }

    /// By what frames of this host for the neighbour itself go. A path that is sealed has no other than rnet's own framing.
    pub fn set_carrier(&self, carrier: Carrier) {
        self.change(|state| state.carrier = if state.sealed { Carrier::Udp } else { carrier });
        self.for_kernel.store(self.carrier() == Carrier::Kernel, Ordering::Relaxed);
    }

    /// See [`Path::set_carrier`].
    pub fn carrier(&self) -> Carrier {
        self.state.load().carrier
    }

    /// Writes a whole probe datagram with this body into `datagram`, replacing what it held. False, and an empty datagram,
    /// without an active epoch.
    pub fn seal_probe(&self, body: &[u8], datagram: &mut Vec<u8>) -> bool {
        datagram.clear();
        let state = self.state.load();
        let Some(keys) = &state.active else {
            return false;
        };
        let Ok(counter) = keys.take_counter() else {
            return false;
        };
        datagram.resize(OUTER_LEN + body.len() + TAG_LEN, 0);
        let written = keys.emit((Kind::Probe, 0, true), counter, datagram, |into| into.copy_from_slice(body));
        if written.is_none() {
            datagram.clear();
        }
        written.is_some()
    }
}

/// The data path's side.
impl Path {
    /// What is needed to write a few datagrams, under one consistent state. `NotReady` without key, address or proof.
    pub fn writer(&self) -> Result<Writer, Drop> {
        let state = self.state.load();
        match (state.endpoint, &state.active, state.ready) {
            (Some(to), Some(_), true) => Ok(Writer { state, to, peer: self.peer(), sparse: false }),
            _ => Err(Drop::NotReady),
        }
    }

    /// Whether the kernel could carry frames to the neighbour itself.
    #[inline]
    pub fn is_for_kernel(&self) -> bool {
        self.for_kernel.load(Ordering::Relaxed)
    }

    /// Checks a datagram of this path that came from `from`, and opens it in place: the inner header and the frame, or the body of
    /// a probe.
    pub fn open<'d>(&self, from: SocketAddr, outer: &Outer, datagram: &'d mut [u8]) -> Result<&'d mut [u8], Drop> {
        let state = self.state.load();
        let known = |keys: &&Arc<Keys>| keys.number == outer.epoch && keys.our_index == outer.index;
        let keys = state.epochs.iter().find(known).ok_or(Drop::UnknownEpoch)?;
        let (header, body) = datagram.split_at_mut_checked(OUTER_LEN).ok_or(Drop::Malformed)?;
        if outer.kind == Kind::Plain {
            // No replay window: what anybody may write must not move it.
            state.check_plain(from)?;
            self.carries();
            return Ok(body);
        }
        if !keys.window().may_accept(outer.counter) {
            return Err(Drop::Replayed);
        }
        let length = keys.opener.open(outer.counter, header, body).map_err(|_| Drop::Forged)?;
        if !keys.window().accept(outer.counter) {
            return Err(Drop::Replayed);
        }
        if outer.kind == Kind::Sealed {
            self.carries();
        }
        body.get_mut(..length).ok_or(Drop::Malformed)
    }

    /// Read first: threads that only write take the line from each other.
    #[inline]
    fn carries(&self) {
        if !self.carried.load(Ordering::Relaxed) {
            self.carried.store(true, Ordering::Relaxed);
        }
    }

    /// Takes a piece of a frame; calls `done` with the frame when this was the last that lacked. Returns how many partial
    /// frames were given up meanwhile.
    pub fn reassemble(
        &self,
        piece: (&Inner, Fragment, &[u8]),
        now: Instant,
        done: impl FnOnce(&mut [u8]),
    ) -> (Result<(), Drop>, u64) {
        let (inner, fragment, bytes) = piece;
        let key = Key { origin: inner.origin, network: inner.network, id: fragment.id };
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        let result = partials.accept(key, fragment, bytes, now).map(|frame| frame.map(done).unwrap_or_default());
        (result, partials.take_lost())
    }

    /// Gives up partial frames that wait for too long. Returns how many were given up.
    pub fn expire(&self, now: Instant) -> u64 {
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        partials.expire(now);
        partials.take_lost()
    }
}

/// A path's state for a burst of datagrams: key, address and MTU do not change between them. To be held for a burst, not longer.
pub struct Writer {
    state: Guard<Arc<State>>,
    to: SocketAddr,
    peer: ShortId,
    sparse: bool,
}

impl Writer {
    /// The same for datagrams of a flow that sends little, or of any.
    pub fn sparse(self, sparse: bool) -> Writer {
        Writer { sparse, ..self }
    }

    /// The most bytes of a frame for one peer that one datagram takes.
    pub fn room(&self) -> usize {
        usize::from(self.state.mtu).saturating_sub(OUTER_LEN + INNER_LEN + self.state.tag_len())
    }

    /// The most bytes of a frame, or of a piece of one, that one datagram with this header takes.
    pub fn room_behind(&self, inner: &Inner) -> usize {
        (self.room() + INNER_LEN).saturating_sub(inner.len())
    }

    /// The same if it is the path's limit; nothing while larger frames may get through in a moment: what senders are told
    /// they remember for minutes (RFC 1191), or for as long as a connection lasts.
    pub fn limit(&self) -> Option<usize> {
        self.state.limit_known.then(|| self.room())
    }

    /// The VXLAN end that a frame with this header goes to: what `me` sends to the neighbour itself.
    #[inline]
    pub(super) fn vxlan(&self, inner: &Inner, me: ShortId) -> Option<End> {
        let Carrier::Vxlan(end) = self.state.carrier else { return None };
        let own = inner.origin == me && inner.destination == self.peer && inner.fragment.is_none();
        (own && !inner.is_flood()).then_some(end)
    }

    /// Writes `len` bytes of a frame, or of a piece of one, as a datagram into memory of `out`; `fill` is given just that room.
    /// `TooBig`: it does not fit the MTU.
    #[inline]
    pub fn write(
        &self,
        inner: &Inner,
        len: usize,
        out: &mut impl Sink,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Drop> {
        let state = &self.state;
        let header = inner.len();
        let length = OUTER_LEN + header + len + state.tag_len();
        if length > usize::from(state.mtu) {
            return Err(Drop::TooBig);
        }
        let keys = state.active.as_ref().ok_or(Drop::NotReady)?;
        let (counter, lane) = (keys.take_counter()?, out.lane());
        let service = Service { alone: state.mtu < MTU_ALONE, sparse: self.sparse };
        let datagram = out.datagram_by(service, self.to, length).ok_or(Drop::SinkFull)?;
        let kind = if state.sealed { Kind::Sealed } else { Kind::Plain };
        let written = keys.emit((kind, lane, self.sparse), counter, datagram, |body| {
            inner.emit(body);
            if let Some(rest) = body.get_mut(header..) {
                fill(rest);
            }
        });
        written.ok_or(Drop::SinkFull)
    }
}

impl State {
    fn tag_len(&self) -> usize {
        if self.sealed { TAG_LEN } else { 0 }
    }

    /// A dual-stack socket tells IPv4 senders as mapped addresses, so both sides are compared in canonical form.
    fn check_plain(&self, from: SocketAddr) -> Result<(), Drop> {
        let canonical = |address: SocketAddr| -> (IpAddr, u16) { (address.ip().to_canonical(), address.port()) };
        if self.sealed {
            return Err(Drop::PlainOnSealed);
        }
        if self.endpoint.map(canonical) != Some(canonical(from)) {
            return Err(Drop::WrongAddress);
        }
        Ok(())
    }
}

impl Keys {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_counter(&self) -> Result<u64, Drop> {
        let counter = self.sealed.fetch_add(1, Ordering::Relaxed);
        if counter < SEALS_MAX { Ok(counter) } else { Err(Drop::Exhausted) }
    }

    /// Fills `datagram`: header, the body that `fill` writes, and the tag unless it is plain. None if it is too short for those.
    #[inline]
    fn emit(
        &self,
        (kind, lane, sparse): (Kind, u8, bool),
        counter: u64,
        datagram: &mut [u8],
        fill: impl FnOnce(&mut [u8]),
    ) -> Option<()> {
        let (header, rest) = datagram.split_first_chunk_mut::<OUTER_LEN>()?;
        Outer { kind, lane, sparse, epoch: self.number, index: self.their_index, counter }.emit(header);
        if kind == Kind::Plain {
            fill(rest);
            return Some(());
        }
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
        fill(body);
        *tag = self.sealer.seal(counter, header, body);
        Some(())
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load();
        f.debug_struct("Path")
            .field("id", &self.id)
            .field("peer", &self.peer())
            .field("endpoint", &state.endpoint)
            .finish()
    }
}

#[cfg(test)]
mod tests;
