//! A client of the admin API: one request, one connection.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tieline_base::{EndpointAddr, Secret};
use tieline_transport::{DialOptions, Io, dial, dial_first};

/// Asks a running server.
#[derive(Debug)]
pub(crate) struct Client {
    door: Door,
}

#[derive(Debug)]
enum Door {
    Socket(PathBuf),
    Network { url: String, addresses: Vec<SocketAddr>, token: Secret },
}

/// Nobody answers.
#[derive(Debug, thiserror::Error)]
#[error("no server answers at {0}; start one with `tieline run`")]
pub(crate) struct NoServer(String);

/// The server said no.
#[derive(Debug, Deserialize)]
pub(crate) struct Refused {
    /// Why, in one line.
    pub(crate) detail: String,
    /// Every single fault, where there are several.
    #[serde(default)]
    pub(crate) errors: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refused {}

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The server begins every answer within 30 s.
const ANSWER_MAX: Duration = Duration::from_secs(35);

impl Client {
    /// A client of the server whose admin socket is at `path`.
    pub(crate) fn socket(path: PathBuf) -> Client {
        Client { door: Door::Socket(path) }
    }

    /// A client of the server at `url`, like `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// When the URL has another form or its name no address.
    pub(crate) fn network(url: &str, token: Secret) -> anyhow::Result<Client> {
        let Some(authority) = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            bail!("\"{url}\" is no address of an admin API; write it like http://127.0.0.1:7070");
        };
        let addresses = authority.to_socket_addrs().with_context(|| format!("\"{authority}\""))?.collect();
        Ok(Client { door: Door::Network { url: url.into(), addresses, token } })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`NoServer`], [`Refused`], or what broke on the way.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Bytes> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (io, host) = tokio::time::timeout(CONNECT_MAX, self.connect())
            .await
            .map_err(|_| NoServer(self.to_string()))??;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Door::Network { token, .. } = &self.door {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let request = request.body(Full::new(body)).context("the request")?;
        let answer = tokio::time::timeout(ANSWER_MAX, exchange(io, request)).await;
        let (status, body) = answer.with_context(|| format!("{self} does not answer"))??;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }

    /// The connection, and what to call the server.
    async fn connect(&self) -> anyhow::Result<(Io, String)> {
        match &self.door {
            Door::Socket(path) => {
                let address = EndpointAddr::Unix(path.as_path().into());
                let io = dial(&address, &DialOptions::default()).await;
                Ok((io.map_err(|error| unreachable(path, error))?, "localhost".into()))
            }
            Door::Network { addresses, .. } => {
                let targets: Vec<_> = addresses.iter().copied().map(EndpointAddr::Socket).collect();
                let dialed = dial_first(&targets, &DialOptions::default()).await;
                let (chosen, io) = dialed.map_err(|_| NoServer(self.to_string()))?;
                // The server answers to its addresses alone, so that no stranger's name can lead a browser to
                // it.
                Ok((io, addresses[chosen].to_string()))
            }
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.door {
            Door::Socket(path) => path.display().fmt(f),
            Door::Network { url, .. } => f.write_str(url),
        }
    }
}

fn unreachable(path: &Path, error: std::io::Error) -> anyhow::Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => NoServer(shown.to_string()).into(),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{shown} is another user's; ask as root or as the user that runs the server")
        }
        _ => anyhow::Error::new(error).context(shown.to_string()),
    }
}

async fn exchange(io: Io, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let mut asking = pin!(async move {
        let response: Response<Incoming> = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    });
    // Both arms may be dropped: when one of them is done, the other is driven on below or not needed.
    tokio::select! {
        answer = &mut asking => answer,
        ended = connection => {
            ended?;
            asking.await
        }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Refused>(body) {
        Ok(refused) => refused.into(),
        Err(_) => anyhow::anyhow!("the server answers {status}"),
    }
}

/// `text` as one segment of a path: RFC 3986 §2.1, everything but the unreserved characters escaped.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_server_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::socket(folder.path().join("admin.sock"));
        let error = client.get("/api/v1/status").await.unwrap_err();
        assert!(error.is::<NoServer>());
        assert!(error.to_string().ends_with("admin.sock; start one with `tieline run`"), "{error}");
    }

    #[test]
    fn a_url_of_another_form_is_told() {
        for url in ["127.0.0.1:7070", "https://127.0.0.1:7070", "http://127.0.0.1"] {
            let error = Client::network(url, Secret::new(String::new())).unwrap_err();
            assert!(!format!("{error:#}").contains('\n'), "{url}");
        }
        assert!(Client::network("http://127.0.0.1:7070/", Secret::new(String::new())).is_ok());
    }

    #[test]
    fn a_segment_stays_one_whatever_is_in_it() {
        assert_eq!(segment("unix:/run/x y.sock"), "unix%3A%2Frun%2Fx%20y.sock");
    }
}
