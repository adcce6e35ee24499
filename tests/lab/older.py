"""Runs a program on a kernel that lacks something: `python3 -u -c THIS <log> <what> <program> [argument..]`; `<what>` is one of

    vxlan       no VXLAN devices: the kind that the program asks for is one that no kernel has
    isolated    a bridge without isolated ports: it takes the unknown attribute without a word, as kernels before 4.18 do
    sticky      a bridge without sticky entries: it takes the flag without a word, as kernels before 4.20 do
    nftables    no netlink family for packet filters
    uso         TAPs without super-frames of UDP, as kernels before 6.2 have
    gro         no UDP_GRO, as kernels before 5.0
    segment     no UDP_SEGMENT: sends take no notice of the word, as those of kernels before 4.18
    memory      no memory to receive datagrams, until the changes end
    broken      no call to receive datagrams by

The kernel tells us of each netlink message that the program, or whatever it starts, is about to send (seccomp_unotify(2)), of
each send with control messages, or of each receive; we change the words that it does not know, and let it answer by itself, or
answer in its place. Each change is a line in the file `<log>`; a file `<log>.off`
next to it ends the changes. Nothing of the program is changed besides. Exit status 77: this kernel cannot do that.
"""

import array
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import sys

NUMBERS = {
    "x86_64": (317, 44, 41, 16, 54, 46, 299, 0xC000003E),
    "aarch64": (277, 206, 198, 29, 208, 211, 243, 0xC00000B7),
}
SECCOMP, SENDTO, SOCKET, IOCTL, SETSOCKOPT, SENDMSG, RECVMMSG, ARCH = NUMBERS.get(platform.machine(), (0,) * 8)
ALLOW, NOTIFY, REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000
RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, ..._SEND
NEWLINK, SETLINK, NEWNEIGH = 16, 19, 28
AF_BRIDGE, STICKY = 7, 0x40
TUNSETOFFLOAD, USO = 0x400454D0, 0x20 | 0x40
SOL_UDP, UDP_SEGMENT, UDP_GRO, NO_LEVEL = 17, 103, 104, 0x7FF0
EINVAL, ENOPROTOOPT, ENOTSOCK, ENOMEM = 22, 92, 88, 12


def install(program):
    """Puts a filter (classic BPF) before all system calls from here on; answers a descriptor where calls are told."""
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    memory = ctypes.create_string_buffer(code)
    filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER.
    listener = libc.syscall(SECCOMP, 1, 8, filter)
    if listener < 0:
        print(f"seccomp: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        os._exit(77)
    return listener


def filter_for(what):
    load = lambda at: (0x20, 0, 0, at)  # of struct seccomp_data: number at 0, architecture at 4, arguments from 16
    unless = lambda value, skip: (0x15, 0, skip, value)
    answer = lambda value: (0x06, 0, 0, value)
    if what == "nftables":
        # socket(AF_NETLINK, .., NETLINK_NETFILTER): EPROTONOSUPPORT.
        arguments = [load(16), unless(16, 3), load(32), unless(12, 1)]
        return [load(4), unless(ARCH, 7), load(0), unless(SOCKET, 5), *arguments, answer(REFUSE | 93), answer(ALLOW)]
    if what == "uso":
        # ioctl(.., TUNSETOFFLOAD, offloads), with any of those that it does not know.
        arguments = [load(24), unless(TUNSETOFFLOAD, 3), load(32), (0x45, 0, 1, USO)]
        return [load(4), unless(ARCH, 7), load(0), unless(IOCTL, 5), *arguments, answer(REFUSE | EINVAL), answer(ALLOW)]
    if what in ("gro", "segment"):
        # setsockopt(.., SOL_UDP, option).
        option = UDP_GRO if what == "gro" else UDP_SEGMENT
        arguments = [load(24), unless(SOL_UDP, 3), load(32), unless(option, 1)]
        refused = [load(0), unless(SETSOCKOPT, 5), *arguments, answer(REFUSE | ENOPROTOOPT)]
        # sendmsg(.., 0): the one by which we hand the descriptor over has a flag.
        sends = [load(0), unless(SENDMSG, 3), load(32), unless(0, 1), answer(NOTIFY)]
        told = sends if what == "segment" else []
        return [load(4), unless(ARCH, len(refused + told)), *refused, *told, answer(ALLOW)]
    if what in ("memory", "broken"):
        return [load(4), unless(ARCH, 3), load(0), unless(RECVMMSG, 1), answer(NOTIFY), answer(ALLOW)]
    # sendto with the address of a netlink socket, by its length.
    return [load(4), unless(ARCH, 5), load(0), unless(SENDTO, 3), load(56), unless(12, 1), answer(NOTIFY), answer(ALLOW)]


def attributes(message, at, end):
    """(type, begin of the attribute, begin and end of its value) of each netlink attribute between."""
    while at + 4 <= end:
        length, kind = struct.unpack_from("HH", message, at)
        if length < 4:
            return
        yield kind & 0x3FFF, at, at + 4, min(at + length, end)
        at += length + 3 & ~3


def nested(message, kinds, at, end):
    """The same of attributes in attributes, by the types on the way to them."""
    for kind, begin, value, stop in attributes(message, at, end):
        if kind == kinds[0]:
            yield from [(begin, value, stop)] if len(kinds) == 1 else nested(message, kinds[1:], value, stop)


def changes(what, message):
    """What is to be written where in a buffer of netlink messages."""
    at = 0
    while at + 16 <= len(message):
        length, kind = struct.unpack_from("IH", message, at)
        body, end = at + 16, at + max(length, 16)
        if kind in (NEWLINK, SETLINK):
            if what == "vxlan":
                # IFLA_LINKINFO, IFLA_INFO_KIND.
                kinds = nested(message, (18, 1), body + 16, end)
                yield from ((value, b"vxlax") for _, value, stop in kinds if message[value:stop].rstrip(b"\0") == b"vxlan")
            if what == "isolated":
                # IFLA_BRPORT_ISOLATED in IFLA_LINKINFO, IFLA_INFO_SLAVE_DATA, or in IFLA_PROTINFO.
                for way in ((18, 5, 33), (12, 33)):
                    yield from ((begin + 2, struct.pack("H", 0x3FF0)) for begin, _, _ in nested(message, way, body + 16, end))
        if what == "sticky" and kind == NEWNEIGH and message[body] == AF_BRIDGE and message[body + 10] & STICKY:
            yield body + 10, bytes([message[body + 10] & ~STICKY])
        at += length + 3 & ~3


def without_segments(memory, header):
    """What is to be written where, so that a send (struct msghdr) says nothing of segments that its kernel would listen to."""
    memory.seek(header + 32)
    at, length = struct.unpack("QQ", memory.read(16))
    end = at + length
    while at + 16 <= end:
        memory.seek(at)
        length, level, kind = struct.unpack("Qii", memory.read(16))
        if length < 16:
            return
        if (level, kind) == (SOL_UDP, UDP_SEGMENT):
            yield at + 8, struct.pack("i", NO_LEVEL)
        at += length + 7 & ~7


def serve(listener, what, log):
    """Changes what the program sends, until all who are under the filter have ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        if any(events & select.POLLHUP for _, events in poll.poll()):
            return
        call = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, call)
        except OSError:
            continue  # the caller was killed
        number, pid = struct.unpack_from("QI", call)
        _, buffer, length = struct.unpack_from("QQQ", call, 32)
        failure = {"memory": ENOMEM, "broken": ENOTSOCK}.get(what)
        try:
            if failure and not os.path.exists(log + ".off"):
                with open(log, "a") as file:
                    print(what, file=file)
                fcntl.ioctl(listener, SEND, bytearray(struct.pack("QqiI", number, 0, -failure, 0)))
                continue
            if not failure and not os.path.exists(log + ".off"):
                with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
                    if what == "segment":
                        wanted = list(without_segments(memory, buffer))
                    else:
                        memory.seek(buffer)
                        wanted = [(buffer + at, words) for at, words in changes(what, memory.read(length))]
                    for at, words in wanted:
                        memory.seek(at)
                        memory.write(words)
                        with open(log, "a") as file:
                            print(what, file=file)
            # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the call is made as it is in memory now.
            fcntl.ioctl(listener, SEND, bytearray(struct.pack("QqiI", number, 0, 0, 1)))
        except OSError as why:
            print(f"older: {why}", file=sys.stderr)


def main(log, what, *program):
    if not SECCOMP:
        sys.exit(77)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        theirs.close()
        _, rights, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        if rights:
            serve(array.array("i", rights[0][2])[0], what, log)
        os._exit(0)
    ours.close()
    listener = install(filter_for(what))
    theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))], socket.MSG_NOSIGNAL)
    theirs.close()
    os.execvp(program[0], program)


main(*sys.argv[1:])
