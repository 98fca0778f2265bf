//! A server of gRPC in another language than ours: python3-grpcio.

use std::net::{SocketAddr, TcpStream};

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::program;

/// A running server of the service `tieline.test.Echo`, whose messages are any bytes, and of
/// `grpc.health.v1.Health`.
///
/// `One` gives back what it gets; asked for `fail` it refuses with FAILED_PRECONDITION, and asked for
/// `health N` it says N to health checks from then on. `Down` counts to the number that it gets, `Up` gives
/// back what it got in one piece, and `Both` gives each message back as it comes.
pub struct GrpcServer {
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl GrpcServer {
    /// Starts it.
    ///
    /// # Panics
    /// With its own words, if it does not start.
    #[track_caller]
    pub fn start() -> GrpcServer {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let script = directory.path().join("server.py");
        std::fs::write(&script, SCRIPT).expect("a fresh temporary directory is writable");
        let address = loopback(free_port());
        // Debian's own Python: another that comes first in the path does not have the package.
        let launch = Launch::new("grpc-server", program("/usr/bin/python3"), directory.path());
        let launch = launch.arg(&script).arg(address.to_string());
        let process = launch.start(|| TcpStream::connect(address).is_ok());
        GrpcServer { process, address, _directory: directory }
    }

    /// Where it listens, in plain text.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

const SCRIPT: &str = r#"
import sys
from concurrent import futures
import grpc

state = {"health": 1}

def one(request, context):
    context.set_trailing_metadata((("x-heard", str(len(request))),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as it was told")
    if request.startswith(b"health "):
        state["health"] = int(request[7:])
    return request

def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number

def up(requests, context):
    return b"".join(requests)

def both(requests, context):
    for request in requests:
        yield request

def check(request, context):
    return b"\x08" + bytes([state["health"]])

server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((
    grpc.method_handlers_generic_handler("tieline.test.Echo", {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }),
    grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
        "Check": grpc.unary_unary_rpc_method_handler(check),
    }),
))
if not server.add_insecure_port(sys.argv[1]):
    sys.exit("cannot listen on " + sys.argv[1])
server.start()
server.wait_for_termination()
"#;
