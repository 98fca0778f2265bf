//! The configs of the products, alike: one worker, one listener, the same backends in turn.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::http::Trust;
use crate::machine;
use crate::product::{Product, Traffic};

/// The head of every Tieline config here.
pub(crate) const TIELINE_SERVER: &str = "[server]\nworkers = 1\naccess_log = \"off\"\nlog = \"warn\"\n";

pub(crate) fn tieline(traffic: Traffic, address: SocketAddr, backends: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    let protocol = if traffic == Traffic::Tcp { "tcp" } else { "http" };
    let server = match traffic {
        Traffic::HttpLogged => TIELINE_SERVER.replace("\"off\"", "\"file:{dir}/access.log\""),
        Traffic::Tcp | Traffic::Http => TIELINE_SERVER.to_owned(),
    };
    format!(
        "{server}\n[listener.bench]\nbind = \"{address}\"\nprotocol = \"{protocol}\"\n\n\
         [[listener.bench.route]]\nupstream = \"bench\"\naccess = \"public\"\n\n\
         [upstream.bench]\nendpoints = [{}]\nbalance = \"round-robin\"\n",
        endpoints.join(", ")
    )
}

pub(crate) fn haproxy(
    traffic: Traffic,
    splicing: bool,
    address: SocketAddr,
    backends: &[SocketAddr],
) -> String {
    // It does not start unless the limit of files is above two for each connection and each pipe; few pipes
    // do.
    let most = machine::connections_max();
    let splice = if splicing { "splice-request\n  option splice-response" } else { "splice-auto" };
    let mode = if traffic == Traffic::Tcp {
        "mode tcp"
    } else {
        "mode http\n  http-reuse always\n  option forwardfor\n  timeout http-keep-alive 1h"
    };
    // It writes no files, but its standard output is one here.
    let log = match traffic {
        Traffic::HttpLogged => "  log stdout format raw local0 info\n  option httplog\n",
        Traffic::Tcp | Traffic::Http => "",
    };
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn {most}\n  maxpipes 100\n\
         defaults\n  {mode}\n{log}  option {splice}\n  maxconn {most}\n\
         \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen bench\n  bind {address}\n  balance roundrobin\n"
    );
    for (index, backend) in backends.iter().enumerate() {
        let _ = writeln!(config, "  server s{index} {backend}"); // a String takes everything
    }
    config
}

/// The inside of its `stream` or `http` block.
pub(crate) fn nginx(traffic: Traffic, address: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: String = backends.iter().map(|backend| format!("server {backend}; ")).collect();
    // 511 is nginx's own backlog; the others listen with the system's largest.
    let listen = format!("listen {address} backlog=4096");
    if traffic == Traffic::Tcp {
        return format!(
            "access_log off; upstream bench {{ {servers}}}\n\
             server {{ {listen}; proxy_pass bench;\n\
             proxy_timeout 1h; proxy_connect_timeout 5s; }}"
        );
    }
    let log = if traffic == Traffic::HttpLogged { "access.log" } else { "off" };
    // Its temporary files would measure the disk; with these buffers it needs none for what is sent here.
    format!(
        "upstream bench {{ {servers}keepalive 64; keepalive_requests {NGINX_REQUESTS}; }}\n\
         server {{ {listen}; access_log {log}; keepalive_timeout 1h; keepalive_requests {NGINX_REQUESTS};\n\
         proxy_max_temp_file_size 0; proxy_buffers 8 32k;\n\
         location / {{ proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
    )
}

/// `config` of `product`, with the TLS of `trust` at its listener.
pub(crate) fn secured(product: Product, config: &str, trust: &Trust) -> String {
    let pair = trust.pair();
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    match product {
        Product::Tieline => {
            let tls = format!("tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}");
            config.replacen("protocol =", &format!("{tls}\nprotocol ="), 1)
        }
        Product::Haproxy | Product::HaproxySplicing => {
            let tls = format!(" ssl crt {} alpn http/1.1\n  balance", trust.both().display());
            config.replacen("\n  balance", &tls, 1)
        }
        Product::PgBouncer => config.to_owned(), // it is configured where it is started
        Product::Nginx => {
            let tls = format!(
                " ssl backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
                 ssl_protocols TLSv1.3"
            );
            config.replacen(" backlog=4096", &tls, 1)
        }
    }
}

/// `config` of `product`, with HTTP/2 at its listener: over the TLS of `trust`, if there is one.
pub(crate) fn http2(product: Product, config: &str, trust: Option<&Trust>) -> String {
    let secured = trust.map_or_else(|| config.to_owned(), |trust| secured(product, config, trust));
    match (product, trust) {
        // It speaks HTTP/2 unless it is told not to.
        (Product::Tieline, _) => secured,
        (Product::Haproxy | Product::HaproxySplicing, Some(_)) => {
            secured.replacen("alpn http/1.1", "alpn h2", 1)
        }
        (Product::Haproxy | Product::HaproxySplicing, None) => {
            secured.replacen("\n  balance", " proto h2\n  balance", 1)
        }
        (Product::Nginx, _) => secured.replacen(" backlog=4096", " http2 backlog=4096", 1),
        (Product::PgBouncer, _) => secured, // it speaks no HTTP
    }
}

/// After so many requests nginx closes a connection; its own 1,000 would measure connecting.
pub(crate) const NGINX_REQUESTS: u32 = 1_000_000_000;
