//! A plugin that shows what it was asked, and one request to it in memory.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use cni_spec::dispatch::{self, Io};
use cni_spec::{
    AddRequest, CheckRequest, CniError, CniResult, DelRequest, Environment, GcRequest, Plugin, StatusRequest,
};
use serde_json::Value;

/// A request as the plugin got it.
#[derive(Debug, Clone)]
pub enum Request {
    Add(AddRequest),
    Del(DelRequest),
    Check(CheckRequest),
    Gc(GcRequest),
    Status(StatusRequest),
}

/// Answers every verb alike and keeps what it was asked.
#[derive(Default)]
pub struct TestPlugin {
    pub result: CniResult,
    pub failure: Option<CniError>,
    pub panic: Option<&'static str>,
    pub seen: RefCell<Vec<Request>>,
}

impl TestPlugin {
    fn serve(&self, request: Request) -> Result<(), CniError> {
        self.seen.borrow_mut().push(request);
        if let Some(text) = self.panic {
            panic!("{text}");
        }
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Plugin for TestPlugin {
    type Error = CniError;

    fn about(&self) -> String {
        "test-plugin 1.2.3: answers tests".to_owned()
    }

    fn add(&self, request: &AddRequest) -> Result<CniResult, CniError> {
        self.serve(Request::Add(request.clone())).map(|()| self.result.clone())
    }

    fn del(&self, request: &DelRequest) -> Result<(), CniError> {
        self.serve(Request::Del(request.clone()))
    }

    fn check(&self, request: &CheckRequest) -> Result<(), CniError> {
        self.serve(Request::Check(request.clone()))
    }

    fn gc(&self, request: &GcRequest) -> Result<(), CniError> {
        self.serve(Request::Gc(request.clone()))
    }

    fn status(&self, request: &StatusRequest) -> Result<(), CniError> {
        self.serve(Request::Status(request.clone()))
    }
}

/// What came out of one request.
#[derive(Debug)]
pub struct Outcome {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
    pub seen: Vec<Request>,
}

impl Outcome {
    /// Standard output, which must be one JSON document in one line.
    pub fn document(&self) -> Value {
        assert_eq!(self.stdout.matches('\n').count(), 1, "not one line: {:?}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", self.stdout))
    }

    /// The error object, which must come with a failure.
    pub fn error(&self) -> Value {
        assert!(!self.success, "succeeded: {self:?}");
        self.document()
    }

    /// The error object's code and message.
    pub fn code_and_msg(&self) -> (u64, String) {
        let error = self.error();
        let (code, msg) = (error["code"].as_u64(), error["msg"].as_str());
        (code.expect("a code"), msg.expect("a message").to_owned())
    }

    /// The one request that reached the plugin, which must have succeeded without a word.
    pub fn only_request(self) -> Request {
        assert!(self.success, "failed: {self:?}");
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""));
        self.seen.into_iter().next().expect("a request")
    }
}

/// The environment of a verb with all its parameters.
pub fn environment(verb: &str) -> Environment {
    Environment::from_iter([
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", ""),
        ("CNI_PATH", "/opt/cni/bin"),
        ("LANG", "C"),
    ])
}

pub fn run(plugin: &TestPlugin, environment: Environment, stdin: impl AsRef<[u8]>) -> Outcome {
    run_with(plugin, environment, &mut stdin.as_ref(), &mut Vec::new())
}

/// The same with a reader of one's own, and a writer in front of standard output.
pub fn run_with(
    plugin: &TestPlugin,
    environment: Environment,
    stdin: &mut dyn Read,
    stdout: &mut (impl Write + AsBytes),
) -> Outcome {
    let mut stderr = Vec::new();
    let code = dispatch::run(plugin, Io { environment, stdin, stdout, stderr: &mut stderr, journal: false });
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Outcome {
        success: format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS),
        stdout: text(stdout.as_bytes()),
        stderr: text(&stderr),
        seen: plugin.seen.take(),
    }
}

/// A writer whose content can be looked at.
pub trait AsBytes {
    fn as_bytes(&self) -> &[u8];
}

impl AsBytes for Vec<u8> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

/// A stream that is broken in both directions.
pub struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("wire cut"))
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("wire cut"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::Error::other("wire cut"))
    }
}

impl AsBytes for Broken {
    fn as_bytes(&self) -> &[u8] {
        &[]
    }
}
