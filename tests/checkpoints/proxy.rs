//! An HTTP proxy in front of a store that makes answers go wrong as a test plans it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::servers::{Kind, Server};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The store never sees it; this status and body are the answer.
    Answer(u16, &'static str),
    /// The same after a while.
    Slowly(Duration, u16),
    /// Nothing.
    Well,
    /// The store does what was asked, and this status is the answer.
    DoneBut(u16),
    /// The store does what was asked, and the connection ends without an answer.
    DoneUnanswered,
    /// The connection ends in the middle of the answer's body.
    CutShort,
    /// Nothing is answered as long as the client waits.
    Stall,
}

/// A request as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
}

#[derive(Debug, Default)]
struct Plan {
    next: VecDeque<(&'static str, Mishap)>,
    always: Option<(&'static str, Mishap)>,
    seen: Vec<Seen>,
}

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    plan: Arc<Mutex<Plan>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (kind, planned) = (server.kind, Arc::clone(&plan));
        let upstream = Arc::new(Upstream { kind, port: server.port, turn: tokio::sync::Mutex::new(()) });
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (plan, upstream) = (Arc::clone(&planned), Arc::clone(&upstream));
                // A client that goes away in the middle is what some tests want.
                tokio::spawn(async move { drop(serve(client, &upstream, &plan).await) });
            }
        });
        Self { port, plan, serving }
    }

    /// The next request of a method meets these, one after the other.
    pub(crate) fn next(&self, method: &'static str, mishaps: &[Mishap]) {
        let mut plan = self.plan.lock().unwrap();
        plan.next.extend(mishaps.iter().map(|mishap| (method, *mishap)));
    }

    /// All requests of a method meet this from now on; nothing: all goes well.
    pub(crate) fn always(&self, mishap: Option<(&'static str, Mishap)>) {
        self.plan.lock().unwrap().always = mishap;
    }

    /// So many requests of a method go well, and all after them meet this.
    pub(crate) fn after(&self, method: &'static str, well: usize, mishap: Mishap) {
        self.next(method, &vec![Mishap::Well; well]);
        self.always(Some((method, mishap)));
    }

    /// Whether everything that was planned has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.plan.lock().unwrap().next.is_empty()
    }

    /// Requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.plan.lock().unwrap().seen)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The store behind the proxy.
struct Upstream {
    kind: Kind,
    port: u16,
    turn: tokio::sync::Mutex<()>,
}

/// One request a connection.
async fn serve(mut client: TcpStream, upstream: &Upstream, plan: &Mutex<Plan>) -> io::Result<()> {
    let (head, body) = read_request(&mut client).await?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mishap = {
        let mut plan = plan.lock().unwrap();
        plan.seen.push(Seen { method: method.to_owned(), path: path.to_owned() });
        match plan.next.front() {
            Some((wanted, _)) if *wanted == method => plan.next.pop_front().map(|(_, mishap)| mishap),
            _ => plan.always.filter(|(wanted, _)| *wanted == method).map(|(_, mishap)| mishap),
        }
    };
    match mishap {
        Some(Mishap::Answer(status, body)) => answer(&mut client, status, body).await,
        Some(Mishap::Slowly(pause, status)) => {
            tokio::time::sleep(pause).await;
            answer(&mut client, status, "").await
        }
        Some(Mishap::Stall) => {
            let mut nothing = [0];
            while client.read(&mut nothing).await? > 0 {}
            Ok(())
        }
        None | Some(Mishap::Well) => client.write_all(&upstream.forward(&head, &body).await?).await,
        Some(Mishap::DoneUnanswered) => upstream.forward(&head, &body).await.map(|_| ()),
        Some(Mishap::DoneBut(status)) => {
            upstream.forward(&head, &body).await?;
            answer(&mut client, status, "").await
        }
        Some(Mishap::CutShort) => {
            let whole = upstream.forward(&head, &body).await?;
            let body = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |at| at + 4);
            client.write_all(&whole[..body + (whole.len() - body) / 2]).await
        }
    }
}

async fn answer(client: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} Planned\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    client.write_all(answer.as_bytes()).await
}

async fn read_request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end + 4);
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((head, body))
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim())
}

impl Upstream {
    /// Sends a request to the store, which closes the connection after its answer.
    async fn forward(&self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        // Moto looks whether an object exists and writes it in two steps; the stores that it stands for do so in one.
        let _turn = if self.kind == Kind::S3 { Some(self.turn.lock().await) } else { None };
        let (kind, upstream) = (self.kind, self.port);
        let upload = (kind == Kind::Gcs).then(|| json_upload(head, body)).flatten();
        let is_upload = upload.is_some();
        let (head, body) = upload.unwrap_or_else(|| (head.to_owned(), body.to_vec()));
        let host = format!("Host: 127.0.0.1:{upstream}");
        let dropped = |line: &str| {
            let line = line.to_ascii_lowercase();
            // Google's emulator looks at the host; a signature for S3 or Azure would not survive another one.
            line.starts_with("connection:") || (kind == Kind::Gcs && line.starts_with("host:"))
        };
        let mut lines: Vec<&str> = head.lines().filter(|line| !dropped(line)).collect();
        lines.push("Connection: close");
        if kind == Kind::Gcs {
            lines.push(&host);
        }
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
        server.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
        server.write_all(&body).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        if is_upload {
            // The XML interface names the object's tag in a header.
            let line = answer.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
            answer.splice(line..line, b"ETag: \"0\"\r\n".iter().copied());
        }
        Ok(answer)
    }
}

/// The emulator of Google's store takes uploads of the JSON interface alone; object_store sends those of the XML interface.
fn json_upload(head: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
    const EDGE: &str = "edge-of-a-part-that-no-content-has";
    let path = head.strip_prefix("PUT /")?.split(' ').next()?;
    let (bucket, name) = path.split_once('/')?;
    let name = decoded(name);
    let mut content =
        format!("--{EDGE}\r\nContent-Type: application/json\r\n\r\n{{\"name\":\"{name}\"}}\r\n").into_bytes();
    content
        .extend_from_slice(format!("--{EDGE}\r\nContent-Type: application/octet-stream\r\n\r\n").as_bytes());
    content.extend_from_slice(body);
    content.extend_from_slice(format!("\r\n--{EDGE}--\r\n").as_bytes());
    let condition = header(head, "x-goog-if-generation-match")
        .map_or(String::new(), |number| format!("&ifGenerationMatch={number}"));
    let head = format!(
        "POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition} HTTP/1.1\r\n\
         Content-Type: multipart/related; boundary={EDGE}\r\nContent-Length: {}",
        content.len()
    );
    Some((head, content))
}

/// A path without its escapes; the names of objects are ASCII.
fn decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        plain.push(u8::from_str_radix(code, 16).expect("an escape is two digits").into());
        plain.push_str(rest);
    }
    plain
}
