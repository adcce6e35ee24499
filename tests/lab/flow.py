"""Moves bytes and datagrams from end to end and tells whether they are the same. Run as `python3 -u -c THIS <what> <args>`.

A server prints `ready` and serves one client; both ends print what they saw as one line of JSON.
"""

import array
import hashlib
import json
import os
import random
import select
import socket
import struct
import sys
import threading
import time

PATIENCE = 60
UDP_SEGMENT, UDP_GRO = 103, 104


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tell(**facts):
    print(json.dumps(facts))


def listener(address, port):
    made = socket.create_server((address, int(port)), family=family(address))
    made.settimeout(PATIENCE)
    return made


def accepted(door):
    link = door.accept()[0]
    link.settimeout(PATIENCE)
    return link


# --- bytes


def exchange(link, total, seed):
    """Sends `total` random bytes in writes of all sizes (none: until the input ends), takes what comes until its end; both at once."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    noise, sent, received, count = random.Random(seed), hashlib.sha256(), hashlib.sha256(), 0

    def send():
        left = total
        while left or (left is None and not select.select([sys.stdin], [], [], 0)[0]):
            size = int(2 ** noise.uniform(0, 18))
            piece = os.urandom(size if left is None else min(left, size))
            sent.update(piece)
            link.sendall(piece)
            left = left and left - len(piece)
        link.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    buffer = bytearray(1 << 18)
    while size := link.recv_into(buffer):
        received.update(memoryview(buffer)[:size])
        count += size
    sender.join()
    tell(sent=sent.hexdigest(), received=received.hexdigest(), bytes=count)


def tcp_serve(address, port, total):
    door = listener(address, port)
    print("ready")
    exchange(accepted(door), int(total), 1)


def tcp_join(address, port, total):
    exchange(socket.create_connection((address, int(port)), timeout=PATIENCE), int(total), 2)


def tcp_join_until_told(address, port):
    exchange(socket.create_connection((address, int(port)), timeout=PATIENCE), None, 2)


def tcp_join_with_options(address, port, total):
    """With headers that few programs use: four bytes of IPv4 options that mean nothing, or IPv6 destination options."""
    link = socket.socket(family(address))
    link.settimeout(PATIENCE)
    if ":" in address:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    else:
        link.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([1, 1, 1, 1]))
    link.connect((address, int(port)))
    exchange(link, int(total), 2)


def sink(address, port):
    """Takes all that comes, for ever."""
    door = listener(address, port)
    door.settimeout(None)
    print("ready")

    def take(link):
        while link.recv(1 << 18):
            pass

    while True:
        threading.Thread(target=take, args=(door.accept()[0],), daemon=True).start()


def pour(address, port, count):
    """Sends by so many connections for ever; prints `ready` when they stand."""
    links = [socket.create_connection((address, int(port)), timeout=PATIENCE) for _ in range(int(count))]
    print("ready")

    def give(link):
        while True:
            link.sendall(bytes(1 << 18))

    for link in links:
        link.settimeout(None)
        threading.Thread(target=give, args=(link,)).start()


# --- datagrams: sequence number, digest, noise; those too short for that are the beginning of a known text

HEAD = struct.Struct("!I8s")


def body(sequence, size):
    if size < HEAD.size:
        return hashlib.shake_128(b"tiny").digest(size)
    noise = random.Random(sequence).randbytes(size - HEAD.size)
    return HEAD.pack(sequence, digest(sequence, noise)) + noise


def digest(sequence, noise):
    return hashlib.sha256(struct.pack("!I", sequence) + noise).digest()[:8]


class Judge:
    """What arrived, and whether it is what was sent."""

    def __init__(self):
        self.count, self.wrong, self.twice, self.late = 0, 0, 0, 0
        self.sizes, self.seen, self.newest = set(), set(), -1

    def hear(self, datagram):
        self.count += 1
        self.sizes.add(len(datagram))
        if len(datagram) < HEAD.size:
            self.wrong += datagram != body(0, len(datagram))
            return
        sequence, told = HEAD.unpack_from(datagram)
        self.wrong += told != digest(sequence, datagram[HEAD.size :])
        self.twice += sequence in self.seen
        self.late += sequence < self.newest
        self.seen.add(sequence)
        self.newest = max(self.newest, sequence)


def datagrams(inlet):
    """One receive; what the kernel has joined is taken apart."""
    data, ancillary, _, _ = inlet.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    size = len(data)
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
            size = array.array("i", value)[0]
    return [data[at : at + size] for at in range(0, len(data), size)] or [data]


def udp_serve(address, port, joined):
    """`joined`: 1 takes datagrams as super-frames where the kernel has any."""
    door = listener(address, port)
    inlet = socket.socket(family(address), socket.SOCK_DGRAM)
    inlet.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(joined))
    inlet.bind((address, int(port)))
    inlet.settimeout(0.5)
    print("ready")
    link, judge = accepted(door), Judge()
    while expected := link.recv(4):
        # The sender waits for what it sent, so nothing is lost to a full queue; what is lost otherwise is waited for a moment.
        try:
            while judge.count < struct.unpack("!I", expected)[0]:
                for datagram in datagrams(inlet):
                    judge.hear(datagram)
        except TimeoutError:
            pass
        link.sendall(struct.pack("!I", judge.count))
    tell(count=judge.count, wrong=judge.wrong, twice=judge.twice, late=judge.late, sizes=len(judge.sizes))


def udp_send(address, port, *plans):
    """Plans: `LEAST-MOST` sends datagrams of all these sizes, `LEAST-MOST*N` each N times, `SIZE@COUNT` that many by one call (GSO)."""
    link = socket.create_connection((address, int(port)), timeout=PATIENCE)
    outlet = socket.socket(family(address), socket.SOCK_DGRAM)
    outlet.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    outlet.connect((address, int(port)))
    sequence, lost, unheard, sizes = 0, 0, 0, set()

    def settle():
        nonlocal lost, unheard
        link.sendall(struct.pack("!I", sequence - lost))
        lost = sequence - struct.unpack("!I", link.recv(4))[0]
        unheard = 0

    def send(many, segment):
        nonlocal sequence, unheard
        outlet.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        bodies = [body(sequence + n, size) for n, size in enumerate(many)]
        outlet.send(b"".join(bodies))
        sizes.update(many)
        sequence += len(many)
        # As the kernel counts against the receiver's buffer, which holds 200 KB.
        unheard += sum(many) + 800 * len(many)
        if unheard > 60_000:
            settle()

    for plan in plans:
        size, at, count = plan.partition("@")
        if at:
            # The last one is shorter.
            send([int(size)] * (int(count) - 1) + [max(1, int(size) // 2)], int(size))
            continue
        bounds, _, times = plan.partition("*")
        least, most = map(int, bounds.split("-"))
        for _ in range(int(times or 1)):
            for size in range(least, most + 1):
                send([size], 0)
    settle()
    link.shutdown(socket.SHUT_WR)
    tell(count=sequence, lost=lost, sizes=len(sizes))


def flood(address, port, seconds, rate):
    """Sends large datagrams, 40 by a call, so many bytes a second (0: as fast as the kernel takes them); tells how many."""
    outlet = socket.socket(family(address), socket.SOCK_DGRAM)
    outlet.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1300)
    outlet.connect((address, int(port)))
    many, count, start = bytes(40 * 1300), 0, time.monotonic()
    while (passed := time.monotonic() - start) < float(seconds):
        if int(rate) and count * 1300 > passed * int(rate):
            time.sleep(0.001)
            continue
        try:
            outlet.send(many)
            count += 40
        except OSError:  # nobody listens there, or the queue is full
            pass
    tell(count=count)


def broadcast(interface, seconds, size):
    """Sends frames to everybody as fast as the kernel takes them; tells how many."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((interface, 0))
    own, count, end = wire.getsockname()[4], 0, time.monotonic() + float(seconds)
    # An ether type for experiments.
    frame = b"\xff" * 6 + own + b"\x88\xb5" + bytes(int(size) - 14)
    while time.monotonic() < end:
        try:
            wire.send(frame)
            count += 1
        except OSError:  # the queue is full
            pass
    tell(count=count)


globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
