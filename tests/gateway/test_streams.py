"""Two hundred clients that do not read, or leave, while their engine has things to say (SECURITY-FIGURES R9, R10)."""

from __future__ import annotations

import asyncio
import os
import time

import psutil

from tests.gateway.conftest import Instance, Start, until

CLIENTS = 200
MIB = 1024 * 1024


async def _open(instance: Instance) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port, limit=1024)
    writer.write(f"GET /mcp/flood HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {instance.key}\r\n\r\n".encode())
    return reader, writer


async def _steady(sample: float = 0.3) -> float:
    """CPU of this process as a share of one core."""
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(sample)
    return (time.process_time() - used) / (time.perf_counter() - began)


async def _idle_within(secs: float) -> float:
    """Seconds until the CPU is below a tenth of a core."""
    began = time.perf_counter()
    while await _steady() > 0.1:
        assert time.perf_counter() - began < secs, "the CPU does not come to rest"
    return time.perf_counter() - began


async def test_clients_that_do_not_read_cost_little_memory_and_leave_the_cpu_idle(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.flood
    before = psutil.Process(os.getpid()).memory_info().rss
    clients = [await _open(instance) for _ in range(CLIENTS)]
    await until(lambda: len(engine.requests) == CLIENTS, within=20)
    await _idle_within(20)  # every buffer on the way is full, and nobody spins
    grown = psutil.Process(os.getpid()).memory_info().rss - before
    assert grown < 100 * MIB  # engine and clients are in this process too
    assert (await instance.data("GET", "/livez")) == {"status": "alive"}

    for _, writer in clients:
        writer.transport.abort()
    await until(lambda: engine.gone == CLIENTS, within=5)
    await _idle_within(2)


async def test_clients_that_leave_a_hot_stream_take_it_with_them(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.flood
    clients = [await _open(instance) for _ in range(50)]

    async def read(reader: asyncio.StreamReader) -> None:
        while await reader.read(65536):
            pass

    reading = [asyncio.create_task(read(reader)) for reader, _ in clients]
    await until(lambda: len(engine.requests) == len(clients), within=20)
    await asyncio.sleep(0.2)
    for task in reading:
        task.cancel()
    for _, writer in clients:
        writer.transport.abort()
    await until(lambda: engine.gone == len(clients), within=5)
    await _idle_within(2)


async def test_a_client_that_takes_nothing_for_too_long_is_dropped(start: Start) -> None:
    instance: Instance = await start(write_secs=0.3)
    engine = instance.engine
    engine.act = engine.flood
    reader, writer = await _open(instance)
    await until(lambda: engine.gone == 1, within=5)
    taken = 0
    try:
        while part := await asyncio.wait_for(reader.read(65536), 2):
            taken += len(part)
    except ConnectionError:
        pass
    assert taken > 0
    writer.close()


async def test_many_quiet_streams_all_hear_what_happens(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: hello\n\n")
    responses = await asyncio.gather(*(instance.http.get(instance.url + "/mcp", headers=instance.bearer) for _ in range(90)))
    heard = await asyncio.gather(*(response.content.readuntil(b"\n\n") for response in responses))
    assert heard == [b"data: hello\n\n"] * 90
    assert await _idle_within(5) < 5
    for response in responses:
        response.close()
    await until(lambda: engine.gone == 90)
