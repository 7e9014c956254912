"""A stand-in for the engine: hands the keeper's frames, with descriptors, to a test outside, and the test's to the keeper."""

import os
import select
import socket
import sys


def main() -> None:
    keeper = socket.socket(fileno=3)
    test = socket.socket(socket.AF_UNIX)
    test.connect(sys.argv[1])
    while True:
        for source in select.select([keeper, test], [], [])[0]:
            data, fds, _, _ = socket.recv_fds(source, 65536, 64)
            if not data:
                os._exit(int(sys.argv[2]) if source is test else 0)
            sink = test if source is keeper else keeper
            sent = socket.send_fds(sink, [data], fds) if fds else sink.send(data)
            sink.sendall(data[sent:])
            for fd in fds:
                os.close(fd)


main()
