"""What all runs together may have under way in the engine: beyond it a request is refused, and nothing of it is kept."""

from __future__ import annotations

import asyncio

from rootlink.engine.functions.room import Room
from tests.functions.ground import Answer, Asked, Stage

SIZE = 16 << 20
SENDS = """async () => {
    try { return (await fetch('https://api.example/', { method: 'POST', body: 'x'.repeat(7 << 20) })).status }
    catch (error) { return `${error.name}: ${error.message}` }
}"""


async def test_requests_that_there_is_no_room_for_are_refused_until_others_are_over(stage: Stage) -> None:
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(asked: Asked) -> Answer:
        arrived.release()
        await go_on.wait()
        return Answer()

    stage.out.network = slow
    stage.host._room = room = Room(SIZE)
    await stage.deploy(SENDS)
    first, gone = (asyncio.create_task(stage.host.invoke("main", "f", None)) for _ in range(2))
    await arrived.acquire()
    await arrived.acquire()
    refused = "LimitError: the functions of this project send more at once than is held for them"
    assert str((await stage.host.invoke("main", "f", None)).output).startswith(refused)
    gone.cancel()
    go_on.set()
    assert (await first).output == 200
    assert (await stage.host.invoke("main", "f", None)).output == 200
    await asyncio.gather(gone, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert room.take(SIZE), "all of it was given back"


async def test_turns_come_one_in_each_turn_of_the_loop() -> None:
    room, turns = Room(), [0]
    took: list[int] = []

    async def work() -> None:
        await room.turn()
        took.append(turns[0])

    async with asyncio.TaskGroup() as tasks:
        works = [tasks.create_task(work()) for _ in range(20)]
        while not all(one.done() for one in works):
            turns[0] += 1
            await asyncio.sleep(0)
    assert len(set(took)) == 20
