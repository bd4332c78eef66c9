//! One visitor: a request and its answer, or an HTTP request for the metrics.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::worker::{Counters, Task};
use crate::Ledger;
use crate::cli::gauges::Gauges;
use crate::cli::metrics;
use crate::clock::Moment;
use crate::event::Cause;
use crate::operation::{Answer, Operation, Request};
use crate::wire::{LONGEST, Question, Reply};

/// How long a visitor may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The owner's own user and root may ask; the socket's mode says the same, and this holds if that is changed.
pub(super) fn may_ask(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

/// Whom a visitor has come to.
#[derive(Clone)]
pub(super) struct Host {
    pub queue: mpsc::Sender<Task>,
    pub counters: Arc<Counters>,
    pub ledger: Arc<Ledger>,
    /// The folder of network configs.
    pub conf_dir: Arc<Path>,
}

/// Answers one line, and the next, until the visitor goes.
pub(super) async fn serve(stream: UnixStream, host: Host) {
    let peer = stream.peer_cred().ok();
    let Ok(asker) = stream.as_fd().try_clone_to_owned().map(Arc::new) else { return };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LONGEST);
        let Ok(Ok(1..)) = timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await else { return };
        if line.starts_with(b"GET ") {
            let response = respond(&line, &host).await;
            // The rest of the request says nothing that matters, and must be read before the answer can be sure to
            // arrive.
            let _ = timeout(Duration::from_millis(100), skip_headers(&mut reader)).await;
            let _ = timeout(PATIENCE, writer.write_all(&response)).await;
            let _ = writer.shutdown().await;
            return;
        }
        let mut request = match Question::read(&line) {
            Ok(request) => request,
            Err(refused) => {
                let Some(answer) = refused.and_then(|refused| line_of(&Reply::Refused(refused))) else { return };
                let _ = timeout(PATIENCE, writer.write_all(&answer)).await;
                return;
            }
        };
        // Who asks is not for the asker to say.
        if let Some(peer) = &peer {
            request.by.uid = peer.uid();
            request.by.pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(request.by.pid);
        }
        let Some(reply) = ask(&host.queue, request, Some(Arc::clone(&asker))).await else { return };
        let Some(answer) = line_of(&reply) else { return };
        let Ok(Ok(())) = timeout(PATIENCE, writer.write_all(&answer)).await else { return };
    }
}

fn line_of(reply: &Reply) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(reply).ok()?;
    line.push(b'\n');
    Some(line)
}

async fn ask(queue: &mpsc::Sender<Task>, request: Request, asker: Option<Arc<OwnedFd>>) -> Option<Reply> {
    let (answer, answered) = oneshot::channel();
    queue.send(Task { request, answer, asker }).await.ok()?;
    answered.await.ok()
}

async fn skip_headers(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) {
    let mut header = Vec::new();
    while let Ok(1..) = (&mut *reader).take(LONGEST).read_until(b'\n', &mut header).await {
        if header == b"\r\n" || header == b"\n" {
            return;
        }
        header.clear();
    }
}

async fn respond(line: &[u8], host: &Host) -> Vec<u8> {
    let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/metrics" => match look(host).await {
            Some((Answer::Contents(contents), seconds)) => {
                let gauges = Gauges::of(&host.ledger, &host.conf_dir, *contents, seconds);
                ("200 OK", metrics::print(&gauges, Some(host.counters.read())))
            }
            _ => ("503 Service Unavailable", "the ledger cannot be read\n".to_owned()),
        },
        _ => ("404 Not Found", "there is /metrics\n".to_owned()),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

/// The contents, and how long it took to get them in seconds.
async fn look(host: &Host) -> Option<(Answer, f64)> {
    let started = Instant::now();
    let asked = Moment::now().ok()?.boottime;
    let by = Cause::of_this_process("metrics");
    let request = host.ledger.request(by, (asked, u64::MAX), Operation::Look).ok()?;
    match ask(&host.queue, request, None).await? {
        Reply::Answer(answer) => Some((answer, started.elapsed().as_secs_f64())),
        Reply::Refused(_) => None,
    }
}
