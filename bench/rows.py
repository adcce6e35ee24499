"""The rows of the comparison, in the order in which they are shown. Each is one peer with its options."""

from __future__ import annotations

from dataclasses import dataclass

from .peers.fastd import Fastd
from .peers.kernel import KernelVxlan, Veth
from .peers.nebula import Nebula
from .peers.openvswitch import OpenVSwitch
from .peers.peer import Peer
from .peers.rnet import Rnet
from .peers.tinc import Tinc
from .peers.vpncloud import VpnCloud
from .peers.wireguard import WireGuard


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    peer: Peer
    # Between hosts, not containers: a bridge and a veth less on each side.
    hosts: bool = False


WIREGUARD_GO = (
    "apt-get install -t bookworm-backports wireguard-go wireguard-tools (0.0.20231211 or newer: older ones lack offloads)"
)

ROWS = (
    Row("veth", "bare veth", Veth(), hosts=True),
    Row("kvxlan", "kernel VXLAN", KernelVxlan()),
    Row("rnet", "rnet, encrypted", Rnet(password=True)),
    Row("rnet-udp", "rnet, plain", Rnet(password=False)),
    Row("rnet-packet", "rnet, AF_PACKET", Rnet(password=True, launch=("--capture", "packet"))),
    Row("rnet-pcap", "rnet, libpcap", Rnet(password=True, launch=("--capture", "pcap"))),
    Row("rnet-vxlan", "rnet, VXLAN framing", Rnet(password=False, framing="vxlan")),
    Row("rnet-kernel", "rnet, kernel framing", Rnet(password=False, framing="kernel")),
    Row(
        "wireguard-go", "wireguard-go", WireGuard("wireguard-go", "-f", install=WIREGUARD_GO, package="wireguard-go"), hosts=True
    ),
    Row(
        "boringtun",
        "boringtun",
        WireGuard("boringtun-cli", "-f", "--disable-drop-privileges", install="cargo install --locked boringtun-cli"),
        hosts=True,
    ),
    Row("nebula", "nebula", Nebula(), hosts=True),
    Row("vpncloud", "VpnCloud", VpnCloud("AES256")),
    Row("fastd", "fastd, salsa2012", Fastd("salsa2012+umac")),
    Row("fastd-null", "fastd, plain", Fastd("null")),
    Row("tinc", "tinc 1.0", Tinc()),
    Row("ovs", "Open vSwitch, userspace", OpenVSwitch()),
)

# Whom ratios compare with, and what they are called.
REFERENCES = {"kvxlan": "VXLAN", "wireguard-go": "wg-go"}
QUICK = ("kvxlan", "rnet")


def chosen(names: list[str]) -> list[Row]:
    """The rows of these names, in the order of the list above."""
    unknown = [name for name in names if name not in {row.name for row in ROWS}]
    if unknown:
        raise ValueError(f"no row {', '.join(unknown)}; there are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if row.name in names]
