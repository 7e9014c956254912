"""Whatever a command behind a door tries, it arrives at a socket of ours, or the watch tells of it."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from rootlink.door import watch
from rootlink.door.watch import Seen
from tests.door.kept import Kept, Refused, Way

CONNECT = """
import socket, sys
for at in sys.argv[1:]:
    host, _, port = at.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(20)
    try:
        sock.connect((host, int(port)))
        sock.sendall(at.encode())
        print(sock.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""
DATAGRAM = """
import socket, sys
for at in sys.argv[1:]:
    host, _, port = at.rpartition(":")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect((host, int(port)))
    sock.send(at.encode())
    try:
        print(sock.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""


def answered(way: Way, port: int, family: int = 4) -> tuple[str, int]:
    """Accepts one as the gate would; the address it was meant for."""
    connection, _ = way.socket("tcp", port, family).accept()
    with connection:
        connection.settimeout(20)
        connection.recv(100)
        connection.sendall(b"the gate")
        return connection.getsockname()[:2]


def seen(way: Way) -> Seen:
    sock = way.socket("watch")
    while (found := watch.parse(sock.recv(65536))) is None:
        pass
    return found


def test_a_hard_coded_address_arrives_at_our_listener_which_knows_what_was_meant(kept: Kept) -> None:
    way = kept.python(CONNECT, "8.8.8.8:443", "93.184.216.34:80")
    assert answered(way, 443) == ("8.8.8.8", 443)
    assert answered(way, 80) == ("93.184.216.34", 80)
    assert way.text().split() == ["the", "gate", "the", "gate"]


def test_so_does_an_ipv6_literal(kept: Kept) -> None:
    if kept.own.families == [4]:
        pytest.skip("no IPv6 in this kernel")
    way = kept.python(CONNECT, "2001:4860:4860::8888:443")
    assert answered(way, 443, 6) == ("2001:4860:4860::8888", 443)


def test_ports_of_the_policy_are_listened_on_and_no_others(kept: Kept) -> None:
    way = kept.python(CONNECT, "10.1.2.3:5432", "10.1.2.3:9000", ports=[5432])
    assert answered(way, 5432) == ("10.1.2.3", 5432)
    assert way.text() == "the gate\nConnectionRefusedError\n"


def test_a_port_is_added_to_a_door_that_is_open(kept: Kept) -> None:
    way = kept.python("input();" + CONNECT, "10.1.2.3:9000")
    kept.say({"listen": {"id": way.number, "ports": [9000, 443]}})
    message, fds = kept.heard()
    assert message == {"listening": way.number, "listeners": [{"kind": "tcp", "port": 9000, "family": f} for f in way.families]}
    way.listeners += message["listeners"]
    way.sockets += [socket.socket(fileno=fd) for fd in fds]
    way.go_on()
    assert answered(way, 9000) == ("10.1.2.3", 9000)


def test_a_port_is_added_to_the_engine_s_own_door(kept: Kept) -> None:
    kept.say({"listen": {"id": 0, "ports": [9000]}})
    message, fds = kept.heard()
    assert message["listening"] == 0
    assert len(fds) == len(message["listeners"]) == len(kept.own.families)
    for fd in fds:
        os.close(fd)


def test_a_port_the_command_took_itself_is_refused_in_words(kept: Kept) -> None:
    way = kept.python("import socket; s = socket.create_server(('', 9000)); print('up'); input()")
    assert way.line() == "up"
    kept.say({"listen": {"id": way.number, "ports": [9000]}})
    assert "port 9000" in kept.heard()[0]["message"]


def test_listening_for_a_door_that_is_not_there_is_refused(kept: Kept) -> None:
    kept.say({"listen": {"id": 99, "ports": [9000]}})
    assert kept.heard()[0]["refused"] == 99


def test_more_ports_than_a_door_can_have_are_refused_in_words(kept: Kept) -> None:
    with pytest.raises(Refused, match="at most 28 ports"):
        kept.spawn("true", ports=list(range(2000, 2030)))
    way = kept.spawn("true", ports=list(range(2000, 2026)))
    assert len(way.sockets) == 28 * len(way.families) + 2 + len(way.families)


def test_a_dns_question_to_whatever_resolver_arrives_and_is_answered_from_there(kept: Kept) -> None:
    way = kept.python(DATAGRAM, "127.0.0.1:53", "1.1.1.1:53")
    sock = way.socket("dns")
    for address in ("127.0.0.1", "1.1.1.1"):
        data, ancillary, _, peer = sock.recvmsg(100, 100)
        assert data.decode() == f"{address}:53"
        ((level, kind, info),) = ancillary
        assert socket.inet_ntoa(info[8:12]) == address
        sock.sendmsg([b"from there"], [(level, kind, struct.pack("=I", 0) + info[8:12] + bytes(4))], 0, peer)
    assert way.text() == "from there\nfrom there\n"


def test_a_dns_question_by_ipv6_too(kept: Kept) -> None:
    if kept.own.families == [4]:
        pytest.skip("no IPv6 in this kernel")
    way = kept.python(DATAGRAM, "2606:4700::1111:53")
    data, ancillary, _, peer = way.socket("dns", 53, 6).recvmsg(100, 100)
    ((level, kind, info),) = ancillary
    assert socket.inet_ntop(socket.AF_INET6, info[:16]) == "2606:4700::1111"
    way.socket("dns", 53, 6).sendmsg([data], [(level, kind, info[:16] + bytes(4))], 0, peer)
    assert way.text() == "2606:4700::1111:53\n"


def test_the_proxy_listens_on_loopback_alone(kept: Kept) -> None:
    way = kept.python(CONNECT, "127.0.0.1:3128", "8.8.8.8:3128")
    connection, _ = way.socket("proxy").accept()
    connection.sendall(b"hello")
    connection.close()
    assert way.text() == "hello\nConnectionRefusedError\n"


def test_what_the_kernel_refused_is_seen_once(kept: Kept) -> None:
    way = kept.python(CONNECT, "8.8.8.8:22", "192.0.2.7:25")
    assert way.text() == "ConnectionRefusedError\n" * 2
    assert [seen(way), seen(way)] == [Seen("8.8.8.8", 22, "tcp"), Seen("192.0.2.7", 25, "tcp")]
    assert nothing_more(way)


def test_a_closed_udp_port_is_seen(kept: Kept) -> None:
    way = kept.python(DATAGRAM, "8.8.8.8:9999", "8.8.4.4:443")
    assert way.text() == "ConnectionRefusedError\n" * 2
    assert [seen(way), seen(way)] == [Seen("8.8.8.8", 9999, "udp"), Seen("8.8.4.4", 443, "udp")]
    assert nothing_more(way)


def test_ipv6_is_seen_too(kept: Kept) -> None:
    if kept.own.families == [4]:
        pytest.skip("no IPv6 in this kernel")
    assert kept.run(CONNECT, "2001:db8::7:22") == "ConnectionRefusedError\n"
    assert kept.run(DATAGRAM, "2001:db8::7:9999") == "ConnectionRefusedError\n"
    tcp, udp = kept.ways[-2:]
    assert (seen(tcp), seen(udp)) == (Seen("2001:db8::7", 22, "tcp"), Seen("2001:db8::7", 9999, "udp"))


def test_connections_that_work_or_end_badly_are_not_seen_as_refused(kept: Kept) -> None:
    way = kept.python(CONNECT, "8.8.8.8:443", "8.8.8.8:443")
    answered(way, 443)
    connection, _ = way.socket("tcp", 443).accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert way.text() == "the gate\nConnectionResetError\n"
    assert nothing_more(way)


def test_no_rate_limit_hides_refusals_and_a_flood_is_bounded(kept: Kept) -> None:
    code = """
import socket, time
for port in range(10000, 10040):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"x", ("8.8.8.8", port))
"""
    kept.run(code)
    way = kept.ways[-1]
    assert {seen(way).port for _ in range(40)} == set(range(10000, 10040))
    kept.run(code.replace("10040", "60000"))
    flooded = kept.ways[-1]
    count = 0
    while not nothing_more(flooded):
        count += 1
    assert 40 <= count <= 400


def nothing_more(way: Way) -> bool:
    sock = way.socket("watch")
    sock.setblocking(False)
    try:
        sock.recv(65536)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    "packet", [b"", b"\x45" + bytes(19), b"\x60" + bytes(39), b"\x45" + bytes(8) + b"\x01" + bytes(40), bytes(99)]
)
def test_bytes_that_are_no_packet_say_nothing(packet: bytes) -> None:
    assert watch.parse(packet) is None
    for length in range(len(packet)):
        watch.parse(packet[:length])


def test_a_ping_is_not_answered_by_the_door_itself(kept: Kept) -> None:
    text = kept.run("print(open('/proc/sys/net/ipv4/icmp_echo_ignore_all').read())")
    assert text.strip() == "1"


def test_doors_do_not_reach_each_other_or_the_host(kept: Kept) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        assert kept.run(CONNECT, f"127.0.0.1:{port}") == "ConnectionRefusedError\n"
    server = kept.python("import socket; s = socket.create_server(('127.0.0.1', 7777)); print('up'); s.accept()")
    assert server.line() == "up"
    assert kept.run(CONNECT, "127.0.0.1:7777") == "ConnectionRefusedError\n"
