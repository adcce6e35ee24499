"""nebula, host to host."""

from __future__ import annotations

import json

from ..process import run
from ..room import STATE, Room, Target
from .peer import Peer


class Nebula(Peer):
    programs = ("nebula", "nebula-cert")
    install = "apt-get install nebula"
    version_argv = ("nebula", "-version")

    def start(self, room: Room) -> Target:
        authority, key = str(STATE / "ca.crt"), str(STATE / "ca.key")
        run(["nebula-cert", "ca", "-name", "bench", "-out-crt", authority, "-out-key", key])
        for host in room.hosts:
            own, secret = (str(STATE / f"nebula-{host.name}.{kind}") for kind in ("crt", "key"))
            sign = ["-name", host.name, "-ip", f"{host.inner}/24", "-out-crt", own, "-out-key", secret]
            run(["nebula-cert", "sign", "-ca-crt", authority, "-ca-key", key, *sign])
            other, anyone = room.other(host), [{"port": "any", "proto": "any", "host": "any"}]
            config = {
                "pki": {"ca": authority, "cert": own, "key": secret},
                "static_host_map": {other.inner: [f"{other.address}:4242"]},
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": host.address, "port": 4242},
                "tun": {"dev": "nebula0", "mtu": 1440},
                "logging": {"level": "warning"},
                "firewall": {"outbound": anyone, "inbound": anyone},
            }
            # JSON is YAML too.
            file = STATE / f"nebula-{host.name}.yml"
            file.write_text(json.dumps(config))
            room.daemon(host, "nebula", "nebula", "-config", str(file))
        for host in room.hosts:
            room.wait_for(host, "nebula0")
        return Target(room.a.ns, room.b.ns, room.b.inner)
