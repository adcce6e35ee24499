"""What a root process inside an attachment can put on its network. Run as `python3 -u -c THIS <interface> <facts as JSON>`.

Facts: own {mac, ip}, friends (of the same network) and victims (of another) as lists of {mac, ip}, doors: MACs of the host's
devices, hosts: the host's own addresses, count: how often each frame is sent, floods: how many new MACs.

Each frame ends with `rnet-evil:<name>;` behind the packet's own end, by which it is known wherever it comes out. Prints
`forged <name>` or `true <name>` for each kind: what is true may come out on its own network, and nowhere else.
"""

import json
import socket
import struct
import sys
import time

EVERYBODY = b"\xff" * 6
IP, ARP, IP6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def inet_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(source, to, protocol, body, ttl=64):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, ttl, protocol, 0, socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack("!H", inet_sum(head)) + head[12:] + body


def udp4(source, to, port=7777, from_port=7777):
    return ip4(source, to, 17, struct.pack("!HHHH", from_port, port, 12, 0) + b"evil")


def ip6(source, to, next_header, body, hops=255):
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    return struct.pack("!IHBB", 6 << 28, len(body), next_header, hops) + addresses + body


def icmp6(source, to, kind, rest, before=b""):
    """`before`: a header in front, whose first byte becomes the type of what follows."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    body = bytes([kind, 0, 0, 0]) + rest
    total = inet_sum(addresses + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return ip6(source, to, 60 if before else 58, before + body)


def arp(operation, sender, sender_ip, target, target_ip):
    return struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + sender + socket.inet_aton(sender_ip) + target + socket.inet_aton(target_ip)


def link_local(address):
    eui = bytes([address[0] ^ 2]) + address[1:3] + b"\xff\xfe" + address[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + b"\0" * 6 + eui)


def v6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def attacks(facts):
    """Yields (name, whether it is forged, frame)."""
    me, ip = mac(facts["own"]["mac"]), facts["own"]["ip"]
    local = link_local(me)
    others = [("friend", other) for other in facts["friends"]] + [("victim", other) for other in facts["victims"]]
    stranger = bytes.fromhex("02deadbeef01")
    all_nodes = bytes.fromhex("333300000001")

    def frame(to, source, kind, body):
        return to + source + kind + body

    # The truth, to whomever: it stays on its network.
    for at, (who, other) in enumerate(others):
        yield f"true-unicast-{who}{at}", False, frame(mac(other["mac"]), me, IP, udp4(ip, other["ip"]))
        yield f"true-arp-{who}{at}", False, frame(EVERYBODY, me, ARP, arp(1, me, ip, b"\0" * 6, other["ip"]))
        yield f"true-broadcast-{who}{at}", False, frame(EVERYBODY, me, IP, udp4(ip, other["ip"]))
    yield "true-broadcast", False, frame(EVERYBODY, me, IP, udp4(ip, "255.255.255.255"))
    yield "true-unknown", False, frame(stranger, me, IP, udp4(ip, "10.32.77.77"))
    yield "true-igmp", False, frame(bytes.fromhex("01005e000016"), me, IP, ip4(ip, "224.0.0.22", 2, bytes.fromhex("2200f9fd00000001") + bytes.fromhex("04000000efff0001"), 1))
    yield "true-mdns", False, frame(bytes.fromhex("01005e0000fb"), me, IP, udp4(ip, "224.0.0.251", 5353))
    yield "true-dhcp-offer", False, frame(EVERYBODY, me, IP, udp4(ip, "255.255.255.255", 68, 67))
    yield "true-other-type", False, frame(EVERYBODY, me, b"\x88\xb5", b"x" * 46)
    yield "true-v6", False, frame(all_nodes, me, IP6, ip6(local, "ff02::1", 17, struct.pack("!HHHH", 7, 7, 8, 0)))

    # Other MACs.
    for at, (who, other) in enumerate(others):
        theirs = mac(other["mac"])
        yield f"mac-of-{who}{at}", True, frame(EVERYBODY, theirs, IP, udp4(ip, "255.255.255.255"))
        yield f"mac-and-ip-of-{who}{at}", True, frame(EVERYBODY, theirs, IP, udp4(other["ip"], "255.255.255.255"))
        yield f"ip-of-{who}{at}", True, frame(EVERYBODY, me, IP, udp4(other["ip"], "255.255.255.255"))
        # "Their address is at my MAC", asked, told, announced, and to one of them alone.
        yield f"arp-reply-{who}{at}", True, frame(EVERYBODY, me, ARP, arp(2, me, other["ip"], EVERYBODY, ip))
        yield f"arp-request-{who}{at}", True, frame(EVERYBODY, me, ARP, arp(1, me, other["ip"], b"\0" * 6, "10.32.2.99"))
        yield f"arp-gratuitous-{who}{at}", True, frame(EVERYBODY, me, ARP, arp(1, me, other["ip"], b"\0" * 6, other["ip"]))
        yield f"arp-sender-{who}{at}", True, frame(EVERYBODY, me, ARP, arp(1, theirs, other["ip"], b"\0" * 6, ip))
        yield f"arp-mac-{who}{at}", True, frame(EVERYBODY, me, ARP, arp(2, theirs, ip, EVERYBODY, ip))
        for to_who, to in others:
            yield f"arp-to-{to_who}-{who}{at}", True, frame(mac(to["mac"]), me, ARP, arp(2, me, other["ip"], mac(to["mac"]), to["ip"]))
        theirs6 = link_local(theirs)
        own_option, their_option = b"\x02\x01" + me, b"\x02\x01" + theirs
        yield f"v6-of-{who}{at}", True, frame(all_nodes, me, IP6, ip6(theirs6, "ff02::1", 17, struct.pack("!HHHH", 7, 7, 8, 0)))
        yield f"nd-advertises-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 136, b"\x20\0\0\0" + v6(theirs6) + own_option))
        yield f"nd-advertises-from-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(theirs6, "ff02::1", 136, b"\x20\0\0\0" + v6(theirs6) + own_option))
        yield f"nd-other-mac-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 136, b"\x20\0\0\0" + v6(local) + their_option))
        yield f"nd-two-macs-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 136, b"\x20\0\0\0" + v6(local) + own_option + their_option))
        yield f"nd-behind-options-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 136, b"\x20\0\0\0" + v6(theirs6) + own_option, bytes([58, 0, 1, 4, 0, 0, 0, 0])))
        yield f"nd-solicits-{who}{at}", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 135, b"\0\0\0\0" + v6("fe80::99") + b"\x01\x01" + theirs))
        yield f"nd-probes-{who}{at}", True, frame(all_nodes, me, IP6, icmp6("::", "ff02::1", 135, b"\0\0\0\0" + v6(theirs6)))
    yield "mac-of-nobody", True, frame(EVERYBODY, stranger, IP, udp4(ip, "255.255.255.255"))
    yield "mac-group", True, frame(EVERYBODY, b"\x03" + me[1:], IP, udp4(ip, "255.255.255.255"))
    yield "mac-broadcast", True, frame(EVERYBODY, EVERYBODY, IP, udp4(ip, "255.255.255.255"))
    yield "mac-zero", True, frame(EVERYBODY, b"\0" * 6, IP, udp4(ip, "255.255.255.255"))
    yield "ip-of-nobody", True, frame(EVERYBODY, me, IP, udp4("10.32.2.200", "255.255.255.255"))
    yield "ip-loopback", True, frame(EVERYBODY, me, IP, udp4("127.0.0.1", "255.255.255.255"))
    yield "dhcp-discover", True, frame(EVERYBODY, me, IP, udp4("0.0.0.0", "255.255.255.255", 67, 68))
    yield "v6-of-nobody", True, frame(all_nodes, me, IP6, ip6("fd00::99", "ff02::1", 17, struct.pack("!HHHH", 7, 7, 8, 0)))
    yield "v6-without", True, frame(all_nodes, me, IP6, ip6("::", "ff02::1", 17, struct.pack("!HHHH", 7, 7, 8, 0)))
    prefix = bytes([3, 4, 64, 0xC0]) + b"\xff" * 8 + b"\0" * 4 + v6("fd66::")
    router = b"\x40\x08\xff\xff" + b"\0" * 8
    yield "router-advertisement", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 134, router + b"\x01\x01" + me + prefix))
    yield "router-behind-options", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 134, router + prefix, bytes([58, 0, 1, 4, 0, 0, 0, 0])))
    yield "redirect", True, frame(all_nodes, me, IP6, icmp6(local, "ff02::1", 137, b"\0\0\0\0" + v6(local) + v6("fd00::1")))

    # Tags: of the other network's id, of none, twice, by other names, and around what is forged.
    inside = IP + udp4(ip, "255.255.255.255")
    for name, tags in [
        ("vlan", "81000001"), ("vlan-4094", "81000ffe"), ("priority", "8100e000"), ("qinq", "88a8000181000002"),
        ("double", "8100000181000002"), ("provider", "88a80001"), ("old", "91000001"),
    ]:
        yield f"tag-{name}", True, EVERYBODY + me + bytes.fromhex(tags) + inside
        yield f"tag-{name}-arp", True, EVERYBODY + me + bytes.fromhex(tags) + ARP + arp(2, me, others[0][1]["ip"], EVERYBODY, ip)

    # To bridges.
    bpdu = bytes.fromhex("424203" + "0000000000" + "0000" + "000000000000" + "00000000" + "0000" + "000000000000" + "8001" + "0000140002000f00")
    yield "stp", True, bytes.fromhex("0180c2000000") + me + struct.pack("!H", len(bpdu)) + bpdu
    yield "lldp", True, bytes.fromhex("0180c200000e") + me + b"\x88\xcc" + bytes.fromhex("0207040200000000010403rnet".replace("rnet", "726e6574") + "0000")
    yield "eapol", True, bytes.fromhex("0180c2000003") + me + b"\x88\x8e" + b"\x01\x01\0\0"
    yield "pause", True, bytes.fromhex("0180c2000001") + me + b"\x88\x08" + b"\0\x01\xff\xff"

    # To the host: by the MACs of its devices, and to everybody, at its own addresses and ports.
    for address in facts["hosts"]:
        yield f"true-host-arp-{address}", False, frame(EVERYBODY, me, ARP, arp(1, me, ip, b"\0" * 6, address))
        for at, door in enumerate(facts["doors"] + ["ff:ff:ff:ff:ff:ff"]):
            for port in (7777, 6783):
                yield f"true-host-{at}-{address}-{port}", False, frame(mac(door), me, IP, udp4(ip, address, port))
                yield f"host-{at}-{address}-{port}", True, frame(mac(door), me, IP, udp4(address, address, port))
    for at, door in enumerate(facts["doors"]):
        yield f"true-host-all-{at}", False, frame(mac(door), me, IP, udp4(ip, "255.255.255.255"))


def main(interface, facts):
    facts = json.loads(facts)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((interface, 0))
    me = mac(facts["own"]["mac"])
    for name, forged, frame in attacks(facts):
        for _ in range(facts["count"]):
            wire.send(frame + f"rnet-evil:{name};".encode())
            time.sleep(0.0005)  # spread, so that none is lost in a full queue
        print("forged" if forged else "true", name)
    for n in range(facts["floods"]):
        source = b"\x02\x66" + struct.pack("!I", n)
        wire.send(EVERYBODY + source + b"\x88\xb5" + b"x" * 46 + b"rnet-evil:flood;")
        if n % 16 == 0:
            time.sleep(0.0005)
    print("forged flood")
    # After all the others: once this has come out, they have, or never will.
    wire.send(EVERYBODY + me + b"\x88\xb5" + b"x" * 46 + b"rnet-evil:last;")


main(*sys.argv[1:])
