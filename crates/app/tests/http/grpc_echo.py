"""A gRPC server and a gRPC client of all four kinds of calls, with messages of plain bytes.

server PORT: serves until it is killed.
client PORT: makes one call of each kind, and prints what came of each.
"""

import sys
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("x-sum", str(len(request))),))
    return request + b"!"


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    return b",".join(requests)


def both_streams(requests, context):
    for request in requests:
        yield request[::-1]


def refusing(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ä")


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "BothStreams": grpc.stream_stream_rpc_method_handler(both_streams),
        "Refusing": grpc.unary_unary_rpc_method_handler(refusing),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
        sys.exit("the port is taken")
    server.start()
    server.wait_for_termination()


def call(port):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    answer, done = channel.unary_unary("/test.Echo/Unary").with_call(b"x" * 100_000, timeout=20)
    print("unary", len(answer), dict(done.trailing_metadata())["x-sum"])
    counted = channel.unary_stream("/test.Echo/ServerStream")(b"1000", timeout=20)
    print("server", sum(int(number) for number in counted))
    words = iter([b"a", b"b", b"c"])
    print("client", channel.stream_unary("/test.Echo/ClientStream")(words, timeout=20).decode())

    # Each word is sent only once the one before it came back.
    sent = ["abc", "def", "ghi"]
    turn = futures.ThreadPoolExecutor(1)
    import queue

    ready = queue.Queue()
    ready.put(sent[0])

    def speak():
        while (word := ready.get()) is not None:
            yield word.encode()

    heard = []
    for answer in channel.stream_stream("/test.Echo/BothStreams")(speak(), timeout=20):
        heard.append(answer.decode())
        ready.put(sent[len(heard)] if len(heard) < len(sent) else None)
    turn.shutdown()
    print("both", *heard)
    for method, name in (("/test.Echo/Refusing", "refused"), ("/nowhere/At", "nowhere")):
        try:
            channel.unary_unary(method)(b"", timeout=20)
        except grpc.RpcError as error:
            print(name, error.code().name, error.details())


if __name__ == "__main__":
    {"server": serve, "client": call}[sys.argv[1]](sys.argv[2])
