"""The server everything is measured against: as small and fast as a real one can be, over stdio or Streamable HTTP.

python bench/server.py stdio|http [--tools N] [--hang]     --hang: answers the handshake and the first list, then nothing
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec


class Server:
    def __init__(self, tools: int, hang: bool) -> None:
        schema = {"type": "object", "properties": {"text": {"type": "string", "description": "what to say back"}}}
        self.tools = [{"name": "echo", "description": "Says it back.", "inputSchema": schema}]
        self.tools += [
            {"name": f"tool_{n}", "description": f"Tool number {n}. " * 4, "inputSchema": schema} for n in range(tools - 1)
        ]
        self.hang, self.hung = hang, False

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if "id" not in message or self.hung:
            return None
        result = self._result(message["method"], message.get("params") or {})
        if result is None:
            return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "bench", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}
        if method == "tools/list":
            self.hung = self.hang
            return {"tools": self.tools}
        if method == "tools/call":
            return {"content": [{"type": "text", "text": str(params.get("arguments", {}).get("text", ""))}], "isError": False}
        return {} if method == "ping" else None


def stdio(server: Server) -> None:
    for line in sys.stdin.buffer:
        answer = server.answer(msgspec.json.decode(line))
        if answer is not None:
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.buffer.flush()


def http(server: Server) -> None:
    """Prints its port on the first line."""
    import socket

    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        answer = server.answer(msgspec.json.decode(body)) if scope["method"] == "POST" else None
        status = 405 if scope["method"] != "POST" else 202 if answer is None else 200
        out = b"" if answer is None else msgspec.json.encode(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(out)).encode()), (b"mcp-session-id", b"s")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    print(bound.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[bound])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["stdio", "http"])
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--hang", action="store_true")
    asked = parser.parse_args()
    {"stdio": stdio, "http": http}[asked.transport](Server(asked.tools, asked.hang))


if __name__ == "__main__":
    main()
