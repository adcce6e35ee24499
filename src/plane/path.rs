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

use super::Sink;
use super::counters::Drop;
use super::fib::PathId;
use super::fragment::{Key, Reassembly};
use crate::crypto::keys::EpochKeys;
use crate::crypto::replay::Window;
use crate::crypto::seal::{Cipher, Opener, Sealer};
use crate::types::{Instant, ShortId};
use crate::wire::datagram::{FRAGMENT_LEN, Fragment, INNER_LEN, Inner, Kind, OUTER_LEN, Outer, TAG_LEN};
use arc_swap::ArcSwap;
use smallvec::SmallVec;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The UDP payload that is assumed to get through until a larger or smaller one is proven: IPv4 over Ethernet.
pub const MTU_ASSUMED: u16 = 1472;

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
    our_index: u32,
    their_index: u32,
    sealer: Sealer,
    opener: Opener,
    sealed: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Clone)]
struct State {
    peer: ShortId,
    endpoint: Option<SocketAddr>,
    sealed: bool,
    ready: bool,
    mtu: u16,
    active: Option<Arc<Keys>>,
    epochs: SmallVec<[Arc<Keys>; EPOCHS_MAX]>,
}

/// See the head of this file.
pub struct Path {
    id: PathId,
    state: ArcSwap<State>,
    partials: Mutex<Reassembly>,
}

/// Control's side.
impl Path {
    /// A path to `peer` without keys or address: sealed, not ready, of the assumed MTU.
    pub fn new(id: PathId, peer: ShortId) -> Path {
        let epochs = SmallVec::new();
        let state = State { peer, endpoint: None, sealed: true, ready: false, mtu: MTU_ASSUMED, active: None, epochs };
        Path { id, state: ArcSwap::from_pointee(state), partials: Mutex::default() }
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
        self.state.load().peer
    }

    /// The neighbour took another number.
    pub fn set_peer(&self, peer: ShortId) {
        self.change(|state| state.peer = peer);
    }

    /// From now on datagrams of this epoch are opened. An epoch of the same number is replaced; of more than four the oldest
    /// one that is not active goes.
    pub fn install(&self, epoch: Epoch) {
        let keys = Arc::new(Keys {
            number: epoch.number,
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

    /// Datagrams written so far in the active epoch.
    pub fn counter(&self) -> u64 {
        self.state.load().active.as_ref().map_or(0, |keys| keys.sealed.load(Ordering::Relaxed))
    }

    /// Where datagrams go, and whence those in clear must come.
    pub fn set_endpoint(&self, endpoint: SocketAddr) {
        self.change(|state| state.endpoint = Some(endpoint));
    }

    /// See [`Path::set_endpoint`].
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.state.load().endpoint
    }

    /// False: frames go in clear, and are taken in clear from the endpoint. Probes are sealed in any case.
    pub fn set_sealed(&self, sealed: bool) {
        self.change(|state| state.sealed = sealed);
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

    /// The largest UDP payload that is proven to get through, bytes; 0: unknown, [`MTU_ASSUMED`] is taken.
    pub fn set_mtu(&self, mtu: u16) {
        self.change(|state| state.mtu = if mtu == 0 { MTU_ASSUMED } else { mtu });
    }

    /// See [`Path::set_mtu`].
    pub fn mtu(&self) -> u16 {
        self.state.load().mtu
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
        let written = keys.emit(Kind::Probe, counter, datagram, |into| into.copy_from_slice(body));
        if written.is_none() {
            datagram.clear();
        }
        written.is_some()
    }
}

/// The data path's side.
impl Path {
    /// The most bytes of a frame that one datagram takes; of a piece of a frame, 6 fewer.
    pub fn room(&self) -> usize {
        let state = self.state.load();
        usize::from(state.mtu).saturating_sub(OUTER_LEN + INNER_LEN + state.tag_len())
    }

    /// The most bytes of a piece of a frame that one datagram takes.
    pub fn fragment_room(&self) -> usize {
        self.room().saturating_sub(FRAGMENT_LEN)
    }

    /// Writes a frame, or a piece of one, as a datagram into memory of `out`. `TooBig`: it does not fit the MTU.
    pub fn write(&self, inner: &Inner, payload: &[u8], out: &mut impl Sink) -> Result<(), Drop> {
        let state = self.state.load();
        let (Some(to), Some(keys), true) = (state.endpoint, &state.active, state.ready) else {
            return Err(Drop::NotReady);
        };
        let header = inner.len();
        let length = OUTER_LEN + header + payload.len() + state.tag_len();
        if length > usize::from(state.mtu) {
            return Err(Drop::TooBig);
        }
        let counter = keys.take_counter()?;
        let datagram = out.datagram(to, length).ok_or(Drop::SinkFull)?;
        let kind = if state.sealed { Kind::Sealed } else { Kind::Plain };
        let written = keys.emit(kind, counter, datagram, |body| {
            inner.emit(body);
            if let Some(rest) = body.get_mut(header..) {
                rest.copy_from_slice(payload);
            }
        });
        written.ok_or(Drop::SinkFull)
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
            return state.check_plain(from).map(|()| body);
        }
        if !keys.window().may_accept(outer.counter) {
            return Err(Drop::Replayed);
        }
        let length = keys.opener.open(outer.counter, header, body).map_err(|_| Drop::Forged)?;
        if !keys.window().accept(outer.counter) {
            return Err(Drop::Replayed);
        }
        body.get_mut(..length).ok_or(Drop::Malformed)
    }

    /// Takes a piece of a frame; calls `done` with the frame when this was the last that lacked. Returns how many partial
    /// frames were given up meanwhile.
    pub fn reassemble(
        &self,
        piece: (&Inner, Fragment, &[u8]),
        now: Instant,
        done: impl FnOnce(&[u8]),
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
    fn emit(&self, kind: Kind, counter: u64, datagram: &mut [u8], fill: impl FnOnce(&mut [u8])) -> Option<()> {
        let (header, rest) = datagram.split_first_chunk_mut::<OUTER_LEN>()?;
        Outer { kind, epoch: self.number, index: self.their_index, counter }.emit(header);
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
            .field("peer", &state.peer)
            .field("endpoint", &state.endpoint)
            .finish()
    }
}
