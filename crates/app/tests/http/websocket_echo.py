"""A WebSocket server that sends everything back, and a client that says what came of it.

server PORT: serves until it is killed.
client URI [CA]: talks to one, and prints what came back.
"""

import asyncio
import ssl
import sys

import websockets


async def echo(socket, path):
    try:
        async for message in socket:
            if message == "bye":
                await socket.close(4001, "as asked")
            else:
                await socket.send(message)
    except websockets.ConnectionClosed:
        pass


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port, subprotocols=["chat"], max_size=None):
        await asyncio.Future()


async def talk(uri, trusted):
    tls = ssl.create_default_context(cafile=trusted) if trusted else None
    async with websockets.connect(uri, subprotocols=["chat"], max_size=None, ssl=tls) as socket:
        print("agreed", socket.subprotocol, ",".join(extension.name for extension in socket.extensions))
        await socket.send("Grüße")
        print("text", await socket.recv())
        whole = bytes(range(256)) * 8192
        await socket.send(whole)
        print("binary", await socket.recv() == whole)
        await socket.send(["in ", "three ", "pieces"])
        print("pieces", await socket.recv())
        await asyncio.wait_for(await socket.ping(), 20)
        print("pong")
        await socket.send("bye")
        try:
            await socket.recv()
        except websockets.ConnectionClosed:
            print("closed", socket.close_code, socket.close_reason)


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    asyncio.run(serve(int(where)) if mode == "server" else talk(where, rest[0] if rest else None))
