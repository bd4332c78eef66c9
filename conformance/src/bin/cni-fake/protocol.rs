//! The wire: what is asked, what is answered, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Answer, Role, chained, interface, ipam};

/// Versions of the spec.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// An error of the spec.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: u64,
    pub msg: String,
}

impl Failure {
    pub fn new(code: u64, msg: &str) -> Self {
        Self { code, msg: msg.to_owned() }
    }
}

/// One call.
#[derive(Debug, Clone)]
pub struct Request {
    pub role: Role,
    pub fault: String,
    pub env: BTreeMap<String, String>,
    pub command: String,
    pub id: String,
    pub ifname: String,
    pub netns: String,
    pub config: Map<String, Value>,
    pub bytes: Vec<u8>,
    pub name: String,
    pub version: String,
}

impl Request {
    pub fn new(role: Role, fault: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the protocol's parameters are variables")]
        let all = std::env::vars_os();
        let env: BTreeMap<_, _> = all
            .map(|(key, value)| (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let var = |key: &str| env.get(key).cloned().unwrap_or_default();
        let (command, id) = (var("CNI_COMMAND"), var("CNI_CONTAINERID"));
        let (ifname, netns) = (var("CNI_IFNAME"), var("CNI_NETNS"));
        Self {
            role,
            fault: fault.to_owned(),
            command,
            id,
            ifname,
            netns,
            env,
            config: Map::new(),
            bytes: Vec::new(),
            name: String::new(),
            version: String::new(),
        }
    }

    /// Whether it is to do wrong what this case asks about.
    pub fn has(&self, case: &str) -> bool {
        self.fault == case
    }

    fn any(&self, cases: &[&str]) -> bool {
        cases.contains(&self.fault.as_str())
    }

    /// Whether it forgets to lock.
    pub fn is_careless(&self) -> bool {
        self.any(&["IO-13b", "IO-13f"]) && self.command == "ADD"
    }

    pub fn is_at(&self, command: &str, case: &str) -> bool {
        self.command == command && self.has(case)
    }

    pub fn key(&self) -> String {
        if self.any(&["ADD-15", "DEL-8b", "GC-1e"]) { self.id.clone() } else { format!("{} {}", self.id, self.ifname) }
    }

    pub fn at_least(&self, version: &str) -> bool {
        parts(&self.version) >= parts(version)
    }

    pub fn reads_stdin(&self) -> bool {
        !self.command.is_empty()
    }

    pub fn field<'a>(&'a self, path: &[&str]) -> Option<&'a Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.config.get(*first)?, |value, key| value.get(key))
    }

    /// A capability argument, whatever the case of its keys.
    pub fn capability(&self, name: &str) -> Option<&Value> {
        self.field(&["runtimeConfig", name]).filter(|value| !value.is_null())
    }

    /// Faults that come before anything is read.
    pub fn misbehave_at_once(&self) {
        if self.has("IO-2c") && self.command == "ADD" && self.role != Role::Ipam {
            // A process that keeps stdout open for longer than the plugin lives.
            let mut command = sandbox::command("sleep");
            let _ = command.arg("3").stdin(std::process::Stdio::null()).spawn();
        }
        if self.has("ROB-8")
            && std::fs::read_to_string("/proc/self/limits").is_ok_and(|text| text.contains("files            64 "))
        {
            std::process::abort();
        }
    }
}

fn parts(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}

/// Answers one call: exit code and stdout.
pub fn serve(mut request: Request, stdin: &[u8]) -> (u8, String) {
    let answer = prepare(&mut request, stdin).and_then(|()| operate(&request));
    match answer {
        Ok(document) => success(&request, document),
        Err(failure) => sorry(&request, &failure),
    }
}

fn success(request: &Request, document: Option<Value>) -> (u8, String) {
    let text = match document {
        Some(document) => document.to_string(),
        None if request.is_at("CHECK", "CHK-8")
            || request.is_at("GC", "GC-5b")
            || request.is_at("STATUS", "STA-1b") =>
        {
            "{}".to_owned()
        }
        None => String::new(),
    };
    if request.is_at("ADD", "IO-2a") {
        return (0, format!("{text}\n{text}"));
    }
    if request.is_at("ADD", "IO-2d") {
        return (0, json!({ "code": 7, "msg": "something went wrong" }).to_string());
    }
    (0, text)
}

fn sorry(request: &Request, failure: &Failure) -> (u8, String) {
    let mut error = json!({ "code": failure.code, "msg": failure.msg });
    let is_input = failure.code == 6;
    if let Some(error) = error.as_object_mut() {
        if !request.has("IO-5d") {
            let version = if request.version.is_empty() { "1.1.0" } else { &request.version };
            error.insert("cniVersion".to_owned(), json!(version));
        }
        match request.fault.as_str() {
            "IO-5a" => error.insert("code".to_owned(), json!("six")),
            "IO-5b" => error.insert("msg".to_owned(), json!("")),
            "IO-5c" => error.insert("details".to_owned(), json!({ "why": failure.msg })),
            "IO-6g" if request.command == "FROBNICATE" => error.insert("code".to_owned(), json!(42)),
            _ => None,
        };
    }
    let text = error.to_string();
    let at = |command: &str, case: &str| is_input && request.is_at(command, case);
    if at("ADD", "IO-2b") {
        return (1, format!("{text}\n{text}"));
    }
    if at("ADD", "IO-3a") || at("DEL", "IO-3b") || request.is_at("FROBNICATE", "IO-3c") {
        return (0, text);
    }
    if at("DEL", "DEL-9") {
        return (0, String::new());
    }
    for (command, case) in [("DEL", "IO-4a"), ("CHECK", "IO-4b"), ("GC", "GC-14"), ("STATUS", "STA-11")] {
        if at(command, case) {
            return (1, "it did not work".to_owned());
        }
    }
    (1, text)
}

/// Reads and checks everything that does not depend on the role.
fn prepare(request: &mut Request, stdin: &[u8]) -> Result<(), Failure> {
    refuse_surroundings(request, stdin)?;
    if request.command == "VERSION" {
        request.config = serde_json::from_slice(stdin).unwrap_or_default();
        return Ok(());
    }
    if !matches!(request.command.as_str(), "ADD" | "DEL" | "CHECK" | "GC" | "STATUS") {
        let name = if request.has("IO-8h") { "the command" } else { "CNI_COMMAND" };
        return Err(Failure::new(4, &format!("unknown {name}: {}", request.command)));
    }
    // An error speaks the config's version, so that is read before the parameters are checked.
    let parsed = config(request, stdin);
    variables(request)?;
    parsed?;
    identifiers(request)?;
    let deep = request.has("ROB-5") && stdin.windows(60).any(|window| window.iter().all(|byte| *byte == b'['));
    if deep || (request.has("ROB-1") && stdin.len() > 65536) {
        return Err(Failure::new(6, "the config is too much"));
    }
    Ok(())
}

/// Faults that depend on what is around the call.
fn refuse_surroundings(request: &Request, stdin: &[u8]) -> Result<(), Failure> {
    let set = |key: &str| request.env.contains_key(key);
    let args = request.env.get("CNI_ARGS").cloned().unwrap_or_default();
    let path = request.env.get("CNI_PATH").cloned().unwrap_or_default();
    let first_missing = || path.split(':').next().is_some_and(|first| !Path::new(first).exists());
    let refused = match request.fault.as_str() {
        "IO-1a" => set("CNI_SOMETHING_ELSE"),
        "IO-1b" => !set("HOME"),
        "IO-12a" => request.command == "ADD" && !set("CNI_ARGS"),
        "IO-12b" => args.starts_with("K8S_POD_INFRA") || args.starts_with("K8S_POD_NAME="),
        "IO-12c" => request.command == "ADD" && first_missing(),
        "VER-3a" => request.command == "VERSION" && !set("CNI_PATH"),
        "VER-3b" => request.command == "VERSION" && request.netns == "dummy",
        "WIRE-3" => request.command == "VERSION" && stdin == b"{\"cniVersion\":\"1.0.0\"}",
        "GC-5a" => request.command == "GC" && request.id.is_empty() && !set("CNI_ARGS"),
        "STA-5" => request.command == "STATUS" && set("CNI_ARGS"),
        "WIRE-8" => request.command == "GC" && set("CNI_ARGS"),
        "IO-11g" => request.ifname.len() == 15,
        "ADD-16" => {
            request.ifname == "net1"
                && request.command == "ADD"
                && String::from_utf8_lossy(stdin).contains("conformance-other")
        }
        "DEL-11" => request.command == "ADD" && Path::new(&format!("/run/cni-fake/deleted-{}", request.id)).exists(),
        "WIRE-9" => request.command == "CHECK" && request.id == "suite-container-1",
        "WIRE-7" => request.command == "DEL" && request.netns == "/run/netns/not-there",
        "WIRE-10" => request.command == "DEL" && request.id == "suite-container-2",
        "GC-8b" => {
            request.command == "GC" && String::from_utf8_lossy(stdin).contains("\"cni.dev/valid-attachments\":null")
        }
        "ROB-3" => umask_is_narrow(),
        "ROB-4" => stdin.starts_with(b"\n"),
        "ROB-7" => {
            if args.contains('\u{fffd}') {
                std::process::abort();
            }
            false
        }
        "WIRE-1" => request.command == "DEL" && args.starts_with("K8S_POD_UID") && request.netns.is_empty(),
        "WIRE-2" => request.command == "CHECK" && args.starts_with("IgnoreUnknown=1;K8S_POD_NAMESPACE"),
        "WIRE-4" => request.command == "DEL" && request.id.starts_with("default-") && request.netns.is_empty(),
        "WIRE-6" => request.command == "DEL" && stdin.starts_with(b"{\"type"),
        _ => false,
    };
    if refused { Err(Failure::new(103, "not like this")) } else { Ok(()) }
}

fn umask_is_narrow() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("Umask:\t0077"))
}

fn variables(request: &Request) -> Result<(), Failure> {
    let needed: &[&str] = match request.command.as_str() {
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" if request.has("DEL-5b") => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME"],
        _ => &[],
    };
    let value = |key: &str| request.env.get(key).map_or("", String::as_str);
    let mut missing: Vec<_> = needed.iter().filter(|key| value(key).is_empty()).copied().collect();
    let lax = [
        ("ADD", "IO-8b", "CNI_NETNS"),
        ("CHECK", "IO-8f", "CNI_NETNS"),
        ("DEL", "IO-8d", "CNI_CONTAINERID"),
        ("DEL", "IO-8e", "CNI_IFNAME"),
        ("ADD", "IO-8a", "CNI_CONTAINERID"),
        ("ADD", "IO-8c", "CNI_IFNAME"),
    ];
    let code = match missing.as_slice() {
        [one]
            if lax.iter().any(|(command, case, key)| {
                request.is_at(command, case) && one == key && !request.env.contains_key(*key)
            }) =>
        {
            7
        }
        _ => 4,
    };
    if request.has("IO-8i") && request.env.get("CNI_CONTAINERID").is_some_and(String::is_empty) {
        return Err(Failure::new(7, "CNI_CONTAINERID is missing"));
    }
    if request.has("IO-8g") && missing.len() > 1 {
        missing.truncate(1);
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(code, &format!("missing: {}", missing.join(", ")))) }
}

fn config(request: &mut Request, stdin: &[u8]) -> Result<(), Failure> {
    let add = request.command == "ADD";
    let wrong = |case: &str, right: u64| if add && request.has(case) { 7 + 2 } else { right };
    let text = String::from_utf8_lossy(stdin);
    let code = if stdin == b"{ not json" {
        wrong("IO-6a", 6)
    } else if stdin.is_empty() {
        wrong("IO-6b", 6)
    } else {
        6
    };
    let code = if text.ends_with("}{") { wrong("IO-6h", code) } else { code };
    let value: Value =
        serde_json::from_slice(stdin).map_err(|error| Failure::new(code, &format!("bad JSON: {error}")))?;
    let code = match &value {
        Value::Array(_) => wrong("IO-6c", 6),
        Value::Null => wrong("IO-6d", 6),
        Value::String(_) => wrong("ROB-6", 6),
        _ => 6,
    };
    let Value::Object(config) = value else { return Err(Failure::new(code, "the config is no object")) };
    let version = match config.get("cniVersion") {
        None => "0.1.0",
        Some(Value::String(version)) => version,
        Some(_) => return Err(Failure::new(wrong("IO-6f", 6), "cniVersion is no text")),
    };
    request.version = version.to_owned();
    request.name = config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    request.bytes = stdin.to_vec();
    request.config = config;
    if request.has("VER-7") && !request.config.contains_key("cniVersion") {
        request.version = "1.0.0".to_owned();
    }
    supported(request)
}

fn supported(request: &Request) -> Result<(), Failure> {
    let version = request.version.as_str();
    let refuses = request.has("VER-5") && version == "0.3.1";
    let too_old = (request.command == "CHECK" && !request.at_least("0.4.0"))
        || (matches!(request.command.as_str(), "GC" | "STATUS") && !request.at_least("1.1.0"));
    let lax = request.is_at("CHECK", "CHK-9") || request.is_at("GC", "GC-10") || request.is_at("STATUS", "STA-10");
    if !VERSIONS.contains(&version) || refuses || (too_old && !lax) {
        let lax = request.is_at("ADD", "VER-6a") || request.is_at("DEL", "VER-6b");
        return Err(Failure::new(if lax { 7 } else { 1 }, &format!("cannot speak {version}")));
    }
    Ok(())
}

/// The names that come from outside.
fn identifiers(request: &Request) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let dashed = |c: char| plain(c) || matches!(c, '.' | '_' | '-');
    let valid = |text: &str| text.starts_with(plain) && text.chars().all(dashed);
    let missing = !request.config.contains_key("name");
    if !valid(&request.name) {
        let lax = match request.name.as_str() {
            "" if missing => request.has("IO-6e"),
            "" => request.has("IO-10j"),
            "-a" => request.has("IO-10i"),
            _ => request.has("IO-10h"),
        };
        return Err(Failure::new(if lax { 6 } else { 7 }, &format!("bad name: {:?}", request.name)));
    }
    if matches!(request.command.as_str(), "GC" | "STATUS") {
        return Ok(());
    }
    id(request, valid(&request.id))?;
    let name = request.ifname.as_str();
    let bad = name.len() > 15 || matches!(name, "." | "..") || name.contains(['/', ':', ' ']);
    let lax = [
        ("IO-11a", name.len() > 15),
        ("IO-11b", name == "."),
        ("IO-11c", name == ".."),
        ("IO-11d", name.contains('/')),
    ];
    let lax = lax.into_iter().chain([("IO-11e", name.contains(' ')), ("IO-11f", name.contains(':'))]);
    let lax = lax.into_iter().any(|(case, hit)| hit && request.has(case));
    if bad { Err(Failure::new(if lax { 101 } else { 4 }, &format!("bad CNI_IFNAME: {name}"))) } else { Ok(()) }
}

fn id(request: &Request, valid: bool) -> Result<(), Failure> {
    let id = request.id.as_str();
    let lax = match id {
        "-leading" => request.has("IO-10a"),
        "a/../b" => request.has("IO-10b"),
        "a b" => request.has("IO-10c"),
        "a\nb" => request.has("IO-10d"),
        _ => false,
    };
    let picky = (request.has("IO-10e") && id.contains('_'))
        || (request.has("IO-10f") && id.len() == 64)
        || (request.has("IO-10g") && id.len() > 64);
    if !valid || picky {
        return Err(Failure::new(if lax { 7 } else { 4 }, &format!("bad CNI_CONTAINERID: {id}")));
    }
    Ok(())
}

fn operate(request: &Request) -> Answer {
    if request.command == "VERSION" {
        return Ok(Some(version(request)?));
    }
    declared(request)?;
    match request.role {
        Role::Main => interface::operate(request),
        Role::Ipam => ipam::operate(request),
        Role::Chained => chained::operate(request),
    }
}

fn version(request: &Request) -> Result<Value, Failure> {
    let asked = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    if request.has("VER-4") && asked == "9.9.0" {
        return Err(Failure::new(1, "that is too new"));
    }
    let said = match request.fault.as_str() {
        "VER-1b" => json!(1),
        "VER-2" if asked == "0.4.0" => json!("1.1.0"),
        _ => json!(asked),
    };
    let mut named = json!(VERSIONS);
    if request.has("VER-1a")
        && let Some(named) = named.as_array_mut()
    {
        named.push(json!("1.0.0"));
    }
    Ok(json!({ "cniVersion": said, "supportedVersions": named }))
}

/// What the config may not say, and what it may.
fn declared(request: &Request) -> Result<(), Failure> {
    let has = |path: &[&str]| request.field(path).is_some();
    let refused = match request.fault.as_str() {
        "IO-9a" => has(&["args"]),
        "IO-9b" => has(&["capabilities", "org.example.other"]),
        "WIRE-5" => has(&["runtimeConfig", "aliases"]),
        "CAP-5" => request.field(&["runtimeConfig"]).and_then(Value::as_object).is_some_and(Map::is_empty),
        _ => false,
    };
    if refused {
        return Err(Failure::new(7, "unknown field"));
    }
    if has(&["unsupported"]) {
        let code = if request.has("IO-7a") { 7 } else { 2 };
        return Err(Failure::new(code, "unsupported=yes is unsupported"));
    }
    if has(&["invalid"]) {
        return Err(Failure::new(if request.has("IO-7b") { 5 } else { 7 }, "invalid is invalid"));
    }
    Ok(())
}
