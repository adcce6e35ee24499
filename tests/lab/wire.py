"""Looks at wires and writes on them: what the lab's tests need of packet and raw sockets. Run as `python3 -u -c THIS <what> <args>`."""

import random
import socket
import struct
import sys
import time

ALL_PROTOCOLS = 3


def sniff(interface):
    """Prints `ready`, then one line `<interface> <packet type> <hex>` for each frame, for ever. `-` is every interface."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    if interface != "-":
        wire.bind((interface, ALL_PROTOCOLS))
        # Promiscuous, so that frames for others are seen too: SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC.
        wire.setsockopt(263, 1, struct.pack("IHH8s", socket.if_nametoindex(interface), 1, 0, b""))
    print("ready")
    while True:
        frame, where = wire.recvfrom(65536)
        print(where[0], where[2], frame.hex())


def send(interface, count, *frames):
    """Writes each frame `count` times on an interface."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((interface, 0))
    for _ in range(int(count)):
        for frame in frames:
            wire.send(bytes.fromhex(frame))
            time.sleep(0.001)  # spread, so that none is lost in a full queue


def inet_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source, source_port, to, port, body):
    """An IPv4 packet with a UDP datagram, from whomever one likes."""
    udp = struct.pack("!HHHH", int(source_port), int(port), 8 + len(body), 0) + body
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack("!H", inet_sum(head)) + head[12:] + udp


def spoof(source, source_port, to, port, *bodies):
    """Sends UDP datagrams with a source address that is not ours."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for body in bodies:
        raw.sendto(datagram(source, source_port, to, port, bytes.fromhex(body)), (to, 0))


def garbage_udp(to, port, count):
    """Sends random datagrams of all sizes, some of which begin like ours."""
    noise, out = random.Random(1), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(int(count)):
        body = bytearray(noise.randbytes(noise.choice([0, 1, 15, 16, 17, 24, 40, 100, 600, 1400])))
        if body and i % 2:
            body[0] = 0x10 | noise.randrange(16)
            body[1:2] = b"\0"
        out.sendto(body, (to, int(port)))
        if i % 64 == 0:
            time.sleep(0.002)


def garbage_tcp(to, port, count):
    """Opens connections that send random bytes, and prints how many of them the other side closed."""
    noise, closed = random.Random(2), 0
    for i in range(int(count)):
        link = socket.create_connection((to, int(port)), timeout=15)
        body = noise.randbytes(noise.choice([1, 64, 4096, 70000]))
        if i % 3 == 0:
            body = b"\xff\xff" + body  # as long as a frame can claim to be
        if i % 3 == 1:
            body = b"rnet" + body
        try:
            link.sendall(body)
            if i % 4 == 0:
                link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass
            closed += 1
        except ConnectionError:
            closed += 1
        except TimeoutError:
            pass
        link.close()
    print(closed)


def hold(to, port, count):
    """Opens connections that say nothing, prints `ready`, and keeps them until the input ends."""
    links = [socket.create_connection((to, int(port)), timeout=15) for _ in range(int(count))]
    print("ready", len(links))
    sys.stdin.read()


def banner(port):
    """Answers everybody on a TCP port as some other program would, for ever."""
    listener = socket.create_server(("", int(port)))
    while True:
        link, _ = listener.accept()
        link.sendall(b"220 mail.example.org ESMTP ready\r\n")
        link.recv(4096)
        link.close()


def occupy(port):
    """Listens on a TCP port, prints `ready`, and stays until the input ends."""
    listener = socket.create_server(("", int(port)))
    print("ready", listener.getsockname()[1])
    sys.stdin.read()


globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
