//! On the way of a frame nothing is allocated: proved by an allocator that counts, over bursts through warmed-up planes.

#[path = "../benches/planes/mod.rs"]
mod planes;

use planes::{
    DOOR, Memory, PORT, UPLINK, address, chain, chain_by_vxlan, chain_in_clear, chain_with_uplink, chain_with_vtep,
    door, frame, frame6, mac, super_frame, super_frame_of_udp, super_frame6, vtep,
};
use rnet::io::egress::{Egress, Senders};
use rnet::io::ingress::Ingress;
use rnet::io::udp::UdpSocket;
use rnet::plane::{Plane, Takes};
use rnet::types::{Instant, Mac};
use rnet::wire::virtio::Offload;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes on to the system's allocator unchanged; counting touches a thread-local number without a destructor and
// does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // A drop on the way of a frame would be the trace of an allocation, or give control's work to a data path thread.
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A burst of each kind: flood and unicast from host 1, through the relay, to host 3, whole and in pieces.
fn burst(planes: &[Plane; 3], frames: &mut [Vec<u8>], now: Instant, memory: &mut [Memory; 3]) -> usize {
    let [first, relay, last] = planes;
    let [sent, relayed, end] = memory;
    [&mut *sent, &mut *relayed, &mut *end].into_iter().for_each(Memory::clear);
    let mut batch = first.batch(now);
    for _ in 0..8 {
        frames.iter_mut().for_each(|frame| batch.from_bridge(PORT, frame, &Offload::NONE, sent));
    }
    let mut batch = relay.batch(now);
    batch.from_net(sent.sent_to(address(2)).map(|datagram| (address(1), datagram)), relayed);
    let mut batch = last.batch(now);
    batch.from_net(relayed.sent_to(address(3)).map(|datagram| (address(2), datagram)), end);
    end.delivered
}

#[test]
fn a_frame_costs_no_allocation_anywhere_on_its_way() {
    let planes = chain();
    let mut memory = [Memory::new(), Memory::new(), Memory::new()];
    let now = Instant::from_nanos(1);
    // Host 3 speaks once, so that host 1 knows where it is.
    let [sent, relayed, end] = &mut memory;
    planes[2].from_bridge(PORT, &frame(3, Mac::BROADCAST, 60), now, sent);
    sent.sent_to(address(2)).for_each(|datagram| planes[1].from_net(address(3), datagram, now, relayed));
    relayed.sent_to(address(1)).for_each(|datagram| planes[0].from_net(address(2), datagram, now, end));
    assert_eq!(end.delivered, 1);

    let flood = frame(1, Mac::BROADCAST, 300);
    let mut frames = [flood, frame(1, mac(3), 1400), frame(1, mac(9), 4000), frame(1, mac(9), 60)];
    assert_eq!(burst(&planes, &mut frames, now, &mut memory), 8 * frames.len());
    let before = ALLOCATIONS.get();
    let mut delivered = 0;
    for round in 0..50 {
        // A second a round: "last seen" is refreshed too.
        let now = Instant::from_nanos(round * 1_000_000_000);
        delivered += burst(&planes, &mut frames, now, &mut memory);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(delivered, 50 * 8 * frames.len());
    // Known unicast is not delivered at the relay, floods and unknown destinations are.
    assert_eq!(planes[1].counters().to_bridge.frames, 1 + 51 * 24);
    for plane in &planes {
        assert_eq!(plane.counters().drops().count(), 0);
    }
    // The count can fail: this is what it would see.
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0u8; 10]));
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn a_super_frame_costs_no_allocation_cut_or_put_together() {
    let planes = chain();
    let mut memory = [Memory::new(), Memory::new(), Memory::new()];
    let (mut frame, offload) = super_frame(1, mac(3), 60_000);
    for takes in [Takes { checksum: true, tcp: true, udp: true }, Takes::default()] {
        memory[2].takes = takes;
        let mut pass = |round: u64| {
            let [sent, relayed, end] = &mut memory;
            [&mut *sent, &mut *relayed, &mut *end].into_iter().for_each(Memory::clear);
            let now = Instant::from_nanos(round * 1_000_000_000);
            planes[0].batch(now).from_bridge(PORT, &mut frame, &offload, sent);
            planes[1].batch(now).from_net(sent.sent_to(address(2)).map(|datagram| (address(1), datagram)), relayed);
            planes[2].batch(now).from_net(relayed.sent_to(address(3)).map(|datagram| (address(2), datagram)), end);
            end.delivered
        };
        let writes = if takes.tcp { 1 } else { 60_000usize.div_ceil(1348) };
        assert_eq!(pass(0), writes);
        let before = ALLOCATIONS.get();
        assert!((1..50).all(|round| pass(round) == writes));
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
    assert_eq!(planes[2].counters().drops().count(), 0);
}

#[test]
fn a_frame_to_or_from_a_vtep_costs_no_allocation() {
    let planes = chain_with_vtep();
    let (mut memory, mut back) = (Memory::new(), Memory::new());
    memory.takes = Takes { checksum: true, tcp: true, udp: true };
    back.takes = memory.takes;
    let to = vtep().ends.to;
    // Everybody behind the VTEP has MAC 9; here is 1.
    let (mut frames, whole) = ([frame(1, Mac::BROADCAST, 300), frame(1, mac(9), 1400)], frame(9, mac(1), 1400));
    let (mut big, offload) = super_frame(1, mac(9), 60_000);
    let mut pass = |round: u64| {
        let now = Instant::from_nanos(round * 1_000_000_000);
        memory.clear();
        let mut batch = planes[0].batch(now);
        frames.iter_mut().for_each(|frame| batch.from_bridge(PORT, frame, &Offload::NONE, &mut memory));
        batch.from_bridge(PORT, &mut big, &offload, &mut memory);
        drop(batch);
        // What was sent comes back as if from somebody behind the VTEP.
        back.clear();
        let mut count = 0;
        let reflected = memory.sent_to(to).map(|datagram| {
            count += 1;
            if let Some(macs) = datagram.get_mut(8..20) {
                macs.copy_from_slice(&whole[..12]);
            }
            (to, datagram)
        });
        planes[0].batch(now).from_vteps(4789, reflected, &mut back);
        (count, back.delivered)
    };
    let segments = 60_000usize.div_ceil(1348);
    // The first to MAC 9 is flooded; then it is known.
    pass(0);
    let before = ALLOCATIONS.get();
    for round in 1..50 {
        let (count, delivered) = pass(round);
        assert!(count == 2 + segments && delivered < count, "{count} {delivered}");
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(planes[0].counters().drops().collect::<Vec<_>>(), []);
}

#[test]
fn a_frame_to_or_from_a_captured_interface_costs_no_allocation() {
    let planes = chain_with_uplink();
    let (mut memory, mut far) = (Memory::new(), Memory::new());
    // Somebody on the segment has MAC 9; here is 1, behind the relay 3.
    let mut frames =
        [(PORT, frame(1, mac(9), 1400)), (UPLINK, frame(9, mac(1), 1400)), (UPLINK, frame(9, mac(3), 900))];
    let (mut big, offload) = super_frame(1, mac(9), 60_000);
    let (mut all, mut back) = (frame(9, Mac::BROADCAST, 300), frame(3, mac(9), 700));
    let mut pass = |round: u64, takes: Takes| {
        let now = Instant::from_nanos(round * 1_000_000_000);
        memory.clear();
        far.clear();
        memory.takes = takes;
        let mut batch = planes[0].batch(now);
        batch.from_bridge(UPLINK, &mut all, &Offload::NONE, &mut memory);
        frames.iter_mut().for_each(|(port, frame)| batch.from_bridge(*port, frame, &Offload::NONE, &mut memory));
        batch.from_bridge(PORT, &mut big, &offload, &mut memory);
        drop(batch);
        // From host 3, by the relay.
        planes[2].batch(now).from_bridge(PORT, &mut back, &Offload::NONE, &mut far);
        memory.delivered
    };
    for (first, takes) in [(0, Takes { checksum: true, tcp: true, udp: true }), (100, Takes::default())] {
        pass(first, takes);
        let before = ALLOCATIONS.get();
        let delivered = pass(first + 1, takes);
        assert!((2..50).all(|round| pass(first + round, takes) == delivered) && delivered > 3);
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
    assert_eq!(planes[0].counters().drops().collect::<Vec<_>>(), []);
}

#[test]
fn an_answered_question_costs_no_allocation() {
    let planes = chain();
    let mut memory = Memory::new();
    let (from, broadcast) = (mac(1), Mac::BROADCAST);
    let arp =
        [&broadcast.0[..], &from.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &from.0, &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 3]]
            .concat();
    let mut solicitation = Vec::new();
    let (own, last) = ([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1], |n| {
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]
    });
    let icmp = etherparse::Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    let packet =
        etherparse::PacketBuilder::ethernet2(from.0, [0x33, 0x33, 0xff, 0, 0, 3]).ipv6(own, last(3), 255).icmpv6(icmp);
    packet.write(&mut solicitation, &last(3)).expect("a vector takes everything");
    let frames = [arp, solicitation];
    let ask = |memory: &mut Memory| {
        frames.iter().for_each(|frame| planes[0].from_bridge(PORT, frame, Instant::from_nanos(1), memory))
    };
    ask(&mut memory);
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| ask(&mut memory));
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(memory.delivered, 202);
    assert_eq!(planes[0].counters().to_net.frames, 0);
}

const ALL: Takes = Takes { checksum: true, tcp: true, udp: true };

/// From the attachment at host 1, as the bridge gives them: whole and by the many, IPv4 and IPv6, TCP and UDP.
fn all_kinds(to: u8) -> Vec<(Vec<u8>, Offload)> {
    let whole = [frame(1, mac(to), 60), frame(1, mac(to), 1400), frame6(1, mac(to), 80), frame6(1, mac(to), 1400)];
    let many = [
        super_frame(1, mac(to), 60_000),
        super_frame6(1, mac(to), 60_000),
        super_frame_of_udp(1, mac(to), 60, 1000),
        super_frame_of_udp(1, mac(to), 60, 64),
    ];
    whole.map(|frame| (frame, Offload::NONE)).into_iter().chain(many).collect()
}

/// Runs `pass` until all is warm, and then 50 times without an allocation and with the same outcome.
fn costs_nothing<T: PartialEq + std::fmt::Debug>(mut pass: impl FnMut(Instant) -> T) -> T {
    let at = |round: u64| Instant::from_nanos(round * 1_000_000_000);
    let expected = [pass(at(0)), pass(at(1))].into_iter().next_back().expect("two");
    let before = ALLOCATIONS.get();
    let same = (2..52).all(|round| pass(at(round)) == expected);
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(same, "not as often {expected:?}");
    expected
}

#[test]
fn frames_of_all_kinds_cost_no_allocation_sealed_or_in_clear() {
    for planes in [chain(), chain_in_clear()] {
        let mut memory = [Memory::new(), Memory::new(), Memory::new()];
        let mut frames = all_kinds(3);
        for takes in [ALL, Takes::default()] {
            memory[2].takes = takes;
            let delivered = costs_nothing(|now| {
                let [sent, relayed, end] = &mut memory;
                [&mut *sent, &mut *relayed, &mut *end].into_iter().for_each(Memory::clear);
                let mut batch = planes[0].batch(now);
                frames.iter_mut().for_each(|(frame, offload)| batch.from_bridge(PORT, frame, offload, sent));
                let burst = sent.sent_to(address(2)).map(|datagram| (address(1), datagram));
                planes[1].batch(now).from_net(burst, relayed);
                let burst = relayed.sent_to(address(3)).map(|datagram| (address(2), datagram));
                planes[2].batch(now).from_net(burst, end);
                end.delivered
            });
            let expected = if takes == ALL { frames.len()..=frames.len() } else { 200..=300 };
            assert!(expected.contains(&delivered), "{delivered}");
        }
        planes.iter().for_each(|plane| assert_eq!(plane.counters().drops().collect::<Vec<_>>(), []));
    }
}

#[test]
fn frames_of_all_kinds_cost_no_allocation_by_vxlan_between_peers() {
    for unfinished in [true, false] {
        let planes = chain_by_vxlan(unfinished);
        let (mut sent, mut end) = (Memory::new(), Memory::new());
        // Host 2 speaks once, so that host 1 knows where it is.
        planes[1].from_bridge(PORT, &frame(2, Mac::BROADCAST, 60), Instant::from_nanos(1), &mut sent);
        let burst = sent.sent_to(address(1)).map(|datagram| (address(2), datagram));
        planes[0].batch(Instant::from_nanos(1)).from_net(burst, &mut end);
        let mut frames = all_kinds(2);
        for takes in [ALL, Takes::default()] {
            end.takes = takes;
            let (datagrams, delivered) = costs_nothing(|now| {
                sent.clear();
                end.clear();
                let mut batch = planes[0].batch(now);
                frames.iter_mut().for_each(|(frame, offload)| batch.from_bridge(PORT, frame, offload, &mut sent));
                let mut datagrams = 0;
                let burst = sent.sent_to(door(2)).map(|datagram| (door(1), datagram));
                planes[1].batch(now).from_vteps(DOOR, burst.inspect(|_| datagrams += 1), &mut end);
                (datagrams, end.delivered)
            });
            let expected = if takes == ALL { frames.len()..=frames.len() } else { datagrams..=datagrams };
            assert!(datagrams > 200 && expected.contains(&delivered), "{delivered} of {datagrams}");
        }
        assert!(planes[0].counters().to_vxlan.frames > 20_000);
        planes.iter().for_each(|plane| assert_eq!(plane.counters().drops().collect::<Vec<_>>(), []));
    }
}

#[test]
fn a_batch_costs_no_allocation_sent_and_received() {
    let bind = || UdpSocket::bind_to("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let (client, servers) = (bind(), [bind(), bind()]);
    let to = servers.each_ref().map(|server| server.local_addr().expect("it is bound"));
    let (mut senders, mut egress, mut ingress) = (Senders::new(Arc::new(client), []), Egress::new(), Ingress::new());
    let (sent, received) = costs_nothing(|_| {
        // By turns, equal and shorter: groups that lie apart are copied together.
        for size in [1400, 1400, 900, 64, 64] {
            to.into_iter().for_each(|to| egress.reserve(to, size).into_iter().for_each(|room| room.fill(7)));
        }
        let sent = egress.flush(&mut senders).datagrams;
        let mut receive = |server| ingress.receive(server).map_or(0, Iterator::count);
        let mut received = 0;
        servers.iter().for_each(|server| (0..4).for_each(|_| received += receive(server)));
        (sent, received)
    });
    assert_eq!((sent, received), (10, 10));
}
