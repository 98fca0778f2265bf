//! Where nuisances go: a proxy with a listener for the others and two for the nuisances, one of them under
//! TLS.

use std::net::SocketAddr;

use tieline_testkit::{Nginx, Tieline, free_port, loopback, usage};

use super::fickle::Fickle;
use super::origin::Origin;
use super::secure::Trust;
use crate::config::{NGINX_REQUESTS, TIELINE_SERVER};
use crate::machine;
use crate::product::Product;

/// A running proxy and its listeners.
pub(crate) struct Scene {
    server: Server,
    doors: Doors,
}

enum Server {
    Tieline(Tieline),
    Nginx(Nginx),
}

#[derive(Clone, Copy)]
struct Doors {
    others: SocketAddr,
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Scene {
    /// Starts `product`, Tieline or else nginx. Without TLS nginx speaks either HTTP/2 at a listener or
    /// HTTP/1.1, as `http2` says; Tieline speaks both.
    pub(crate) fn start(
        product: Product,
        http2: bool,
        trust: &Trust,
        origin: &Origin,
        patient: &Fickle,
    ) -> anyhow::Result<Scene> {
        let [others, plain, secure] = [(); 3].map(|()| loopback(free_port()));
        let doors = Doors { others, plain, secure };
        let backends = [origin.address(), patient.address()];
        let server = if product == Product::Tieline {
            let config = tieline(doors, trust, backends);
            Server::Tieline(Tieline::start_from(&machine::tieline_binary()?, &config))
        } else {
            Server::Nginx(Nginx::http(&nginx(doors, http2, trust, backends), others))
        };
        Ok(Scene { server, doors })
    }

    /// Where the others ask.
    pub(crate) fn others(&self) -> SocketAddr {
        self.doors.others
    }

    /// Where nuisances without TLS go.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.doors.plain
    }

    /// Where those of TLS go.
    pub(crate) fn secure(&self) -> SocketAddr {
        self.doors.secure
    }

    /// The process that everything of it descends from.
    pub(crate) fn pid(&self) -> u32 {
        match &self.server {
            Server::Tieline(tieline) => tieline.pid(),
            Server::Nginx(nginx) => nginx.pid(),
        }
    }

    /// The memory of its own, all processes together, in MiB.
    pub(crate) fn memory_mib(&self) -> f64 {
        usage::own_memory_kib(self.pid()) as f64 / 1024.0
    }
}

fn tieline(doors: Doors, trust: &Trust, [origin, patient]: [SocketAddr; 2]) -> String {
    let pair = trust.pair();
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let tls = format!("tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}");
    let listener = |name: &str, bind: SocketAddr, more: &str| {
        format!(
            "\n[listener.{name}]\nbind = \"{bind}\"\nprotocol = \"http\"\n{more}\n\
             [[listener.{name}.route]]\nupstream = \"bench\"\naccess = \"public\"\n\n\
             [[listener.{name}.route]]\npath = \"/patient\"\nupstream = \"patient\"\n\
             access = \"public\"\n"
        )
    };
    [
        TIELINE_SERVER.to_owned(),
        listener("others", doors.others, ""),
        listener("plain", doors.plain, ""),
        listener("secure", doors.secure, &tls),
        format!("\n[upstream.bench]\nendpoints = [\"{origin}\"]\n"),
        format!("\n[upstream.patient]\nendpoints = [\"{patient}\"]\n"),
    ]
    .concat()
}

/// The inside of its `http` block: as it comes, but for connections that are kept alive and bodies that are
/// passed on as they come, which Tieline does, too.
fn nginx(doors: Doors, http2: bool, trust: &Trust, [origin, patient]: [SocketAddr; 2]) -> String {
    let pair = trust.pair();
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        pair.certificate.display(),
        pair.key.display()
    );
    let server = |bind: SocketAddr, listen: &str, more: &str| {
        format!(
            "server {{ listen {bind} {listen} backlog=4096; {more}\n\
             keepalive_timeout 1h; keepalive_requests {NGINX_REQUESTS};\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
             proxy_max_temp_file_size 0; proxy_request_buffering off;\n\
             location / {{ proxy_pass http://bench; }}\n\
             location /patient {{ proxy_pass http://{patient}; }} }}\n"
        )
    };
    [
        format!("upstream bench {{ server {origin}; keepalive 64; keepalive_requests {NGINX_REQUESTS}; }}\n"),
        server(doors.others, "", ""),
        server(doors.plain, if http2 { "http2" } else { "" }, ""),
        server(doors.secure, "ssl", &tls),
    ]
    .concat()
}
