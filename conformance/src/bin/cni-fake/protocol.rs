//! The wire: what is asked, what is answered, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::result::shaped;
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
    fault: Fault,
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
    pub fn new(role: Role, fault: Fault) -> Self {
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
            fault,
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

    /// Whether it is to do wrong what this case asks about. What comes before in a condition says where that shows.
    pub fn has(&self, case: &str) -> bool {
        self.fault.is(case)
    }

    /// Whether the runtime has said how the pod is called.
    pub fn is_named(&self) -> bool {
        self.env.get("CNI_ARGS").is_some_and(|args| args.contains("K8S_POD_NAME="))
    }

    /// Whether the interface is called after this topic of the suite. Mistakes that could not but show everywhere are made
    /// with such an interface only.
    pub fn about(&self, topic: &str) -> bool {
        self.ifname.strip_suffix('0') == Some(topic)
    }

    /// Whether it is to do wrong what this case asks about, on an interface that is called after the case's topic.
    pub fn has_in(&self, topic: &str, case: &str) -> bool {
        self.about(topic) && self.has(case)
    }

    /// Whether it is to do wrong one of those that would show here.
    pub fn commits(&self, due: &[(&str, bool)]) -> bool {
        due.iter().any(|(case, shows)| *shows && self.has(case))
    }

    /// The same for what shows in this operation.
    pub fn is_at(&self, command: &str, case: &str) -> bool {
        self.command == command && self.has(case)
    }

    /// What the attachment is found by.
    pub fn key(&self) -> String {
        self.key_of(&self.id, &self.ifname)
    }

    /// The same of another one. With one of these mistakes all interfaces of a container are one.
    pub fn key_of(&self, id: &str, ifname: &str) -> String {
        let first = [("ADD-15", "add0"), ("DEL-8b", "del0"), ("GC-1e", "gc0")];
        let one_for_all = if ifname == "net1" { first.into_iter().find(|(case, _)| self.has(case)) } else { None };
        format!("{id} {}", one_for_all.map_or(ifname, |(_, first)| first))
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
        if self.is_named() && self.command == "ADD" && self.role != Role::Ipam && self.has_in("protocol", "IO-2c") {
            // A process that keeps stdout open for longer than the plugin lives, however long that is.
            let mut command = sandbox::command("sh");
            command.args(["-c", "while [ -d /proc/$0 ]; do sleep 0.05; done; exec sleep 3"]);
            let _ = command.arg(std::process::id().to_string()).stdin(std::process::Stdio::null()).spawn();
        }
        let narrow =
            || std::fs::read_to_string("/proc/self/limits").is_ok_and(|text| text.contains("files            64 "));
        if narrow() && self.has("ROB-8") {
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
    let is_busy = request.capability("mac").is_some() && !request.is_named();
    if is_busy && request.command == "ADD" && request.has_in("protocol", "IO-2a") {
        return (0, format!("{text}\n{text}"));
    }
    if request.is_named() && request.command == "ADD" && request.has_in("protocol", "IO-2d") {
        return (0, json!({ "code": 7, "msg": "something went wrong" }).to_string());
    }
    (0, text)
}

fn sorry(request: &Request, failure: &Failure) -> (u8, String) {
    let mut error = json!({ "code": failure.code, "msg": failure.msg });
    let is_input = failure.code == 6;
    let said = |text: &str| request.bytes == text.as_bytes();
    if let Some(error) = error.as_object_mut() {
        let is_bare = request.command == "ADD" && request.ifname.is_empty();
        if !(is_bare && request.has("IO-5d")) {
            let version = if request.version.is_empty() { "1.1.0" } else { &request.version };
            error.insert("cniVersion".to_owned(), json!(version));
        }
        if said("{ 'name': 'n' }") && request.has("IO-5a") {
            error.insert("code".to_owned(), json!("six"));
        }
        if said("<config/>") && request.has("IO-5b") {
            error.insert("msg".to_owned(), json!(""));
        }
        if request.has_in("protocol", "IO-5c") {
            error.insert("details".to_owned(), json!({ "why": failure.msg }));
        }
        if request.is_at("FROBNICATE", "IO-6g") {
            error.insert("code".to_owned(), json!(42));
        }
    }
    let text = error.to_string();
    let at = |command: &str, case: &str| is_input && request.is_at(command, case);
    if said("no json") && at("ADD", "IO-2b") {
        return (1, format!("{text}\n{text}"));
    }
    let is_cut_off = said("{\"name\": \"cut off");
    if (is_cut_off && (at("ADD", "IO-3a") || at("DEL", "IO-3b"))) || request.is_at("FROBNICATE", "IO-3c") {
        return (0, text);
    }
    if said("name: n") && at("DEL", "DEL-9") {
        return (0, String::new());
    }
    for (command, case) in [("DEL", "IO-4a"), ("CHECK", "IO-4b"), ("GC", "GC-14"), ("STATUS", "STA-11")] {
        if said("{ not json") && at(command, case) {
            return (1, "it did not work".to_owned());
        }
    }
    (1, text)
}

/// Reads and checks everything that does not depend on the role.
fn prepare(request: &mut Request, stdin: &[u8]) -> Result<(), Failure> {
    request.bytes = stdin.to_vec();
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
    let deep = || stdin.windows(60).any(|window| window.iter().all(|byte| *byte == b'['));
    if (stdin.len() > 65536 && request.has("ROB-1")) || (deep() && request.has("ROB-5")) {
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
    let at = |command: &str| request.command == command;
    let text = String::from_utf8_lossy(stdin);
    if args.contains('\u{fffd}') && request.has("ROB-7") {
        std::process::abort();
    }
    let refused = request.commits(&[
        ("IO-1a", set("CNI_SOMETHING_ELSE")),
        ("IO-1b", !set("HOME")),
        ("IO-12a", at("ADD") && !set("CNI_ARGS")),
        ("IO-12b", args.starts_with("K8S_POD_INFRA") || args.starts_with("K8S_POD_NAME=")),
        ("IO-12c", at("ADD") && first_missing()),
        ("VER-3a", at("VERSION") && !set("CNI_PATH")),
        ("VER-3b", at("VERSION") && request.netns == "dummy"),
        ("WIRE-3", at("VERSION") && request.netns == "dummy" && stdin == b"{\"cniVersion\":\"1.0.0\"}"),
        ("GC-5a", at("GC") && !set("CNI_CONTAINERID")),
        ("STA-5", at("STATUS") && set("CNI_ARGS")),
        ("WIRE-8", at("GC") && set("CNI_ARGS") && text.contains("\"eth0\"")),
        ("IO-11g", request.ifname.len() == 15),
        ("ADD-16", at("ADD") && request.ifname == "net1" && text.contains("conformance-other")),
        (
            "DEL-11",
            request.about("del") && at("ADD") && Path::new(&format!("/run/netns/.deleted-{}", request.id)).exists(),
        ),
        ("WIRE-9", request.about("eth") && at("CHECK") && args.ends_with("K8S_POD_NAME=web")),
        ("WIRE-7", request.about("eth") && at("DEL") && request.netns == "/run/netns/not-there"),
        ("WIRE-10", request.about("eth") && at("DEL") && request.id == "suite-container-2"),
        ("GC-8b", at("GC") && text.contains("\"cni.dev/valid-attachments\":null")),
        ("ROB-3", umask_is_narrow()),
        ("ROB-4", stdin.starts_with(b"\n")),
        ("WIRE-1", at("DEL") && args.starts_with("K8S_POD_UID") && request.netns.is_empty()),
        ("WIRE-2", request.about("eth") && at("CHECK") && args.contains("K8S_POD_INFRA_CONTAINER_ID")),
        ("WIRE-4", at("DEL") && request.id.starts_with("default-") && request.netns.is_empty()),
        ("WIRE-6", at("DEL") && stdin.starts_with(b"{\"type")),
    ]);
    if refused { Err(Failure::new(103, "not like this")) } else { Ok(()) }
}

fn umask_is_narrow() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("Umask:\t0077"))
}

fn variables(request: &Request) -> Result<(), Failure> {
    let needed: &[&str] = match request.command.as_str() {
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" if !request.env.contains_key("CNI_NETNS") && request.has("DEL-5b") => {
            &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]
        }
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
                one == key && !request.env.contains_key(*key) && request.is_at(command, case)
            }) =>
        {
            7
        }
        _ => 4,
    };
    if request.env.get("CNI_CONTAINERID").is_some_and(String::is_empty) && !missing.is_empty() && request.has("IO-8i") {
        return Err(Failure::new(7, "CNI_CONTAINERID is missing"));
    }
    if missing.len() > 1 && request.has("IO-8g") {
        missing.truncate(1);
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(code, &format!("missing: {}", missing.join(", ")))) }
}

fn config(request: &mut Request, stdin: &[u8]) -> Result<(), Failure> {
    let add = request.command == "ADD";
    let wrong = |case: &str, right: u64| if add && request.has(case) { 4 } else { right };
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
    request.config = config;
    if !request.config.contains_key("cniVersion") && request.has("VER-7") {
        request.version = "1.0.0".to_owned();
    }
    supported(request)
}

fn supported(request: &Request) -> Result<(), Failure> {
    let version = request.version.as_str();
    let too_old = (request.command == "CHECK" && !request.at_least("0.4.0"))
        || (matches!(request.command.as_str(), "GC" | "STATUS") && !request.at_least("1.1.0"));
    let lax = || request.is_at("CHECK", "CHK-9") || request.is_at("GC", "GC-10") || request.is_at("STATUS", "STA-10");
    if !VERSIONS.contains(&version) || (version == "0.3.1" && request.has("VER-5")) || (too_old && !lax()) {
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
    let lax = [
        ("IO-11a", name.len() > 15),
        ("IO-11b", name == "."),
        ("IO-11c", name == ".."),
        ("IO-11d", name.contains('/')),
    ];
    let lax =
        request.commits(&lax) || request.commits(&[("IO-11e", name.contains(' ')), ("IO-11f", name.contains(':'))]);
    if !is_a_link_name(name) && !lax { Err(Failure::new(4, &format!("bad CNI_IFNAME: {name}"))) } else { Ok(()) }
}

/// Whether the kernel takes it (`dev_valid_name`, net/core/dev.c).
fn is_a_link_name(name: &str) -> bool {
    name.len() <= 15 && !matches!(name, "." | "..") && !name.contains(['/', ':', ' '])
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
    let picky = request.commits(&[("IO-10e", id.contains('_')), ("IO-10f", id.len() == 64), ("IO-10g", id.len() > 64)]);
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
    if request.command == "ADD" && !is_a_link_name(&request.ifname) {
        // As if it had been made.
        return Ok(Some(shaped(request, json!({ "ips": [{ "address": "10.0.0.1/24" }], "interfaces": [] }))));
    }
    match request.role {
        Role::Main => interface::operate(request),
        Role::Ipam => ipam::operate(request),
        Role::Chained => chained::operate(request),
    }
}

fn version(request: &Request) -> Result<Value, Failure> {
    let asked = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    if asked == "9.9.0" && request.has("VER-4") {
        return Err(Failure::new(1, "that is too new"));
    }
    let said = match asked {
        _ if request.has("VER-1b") => json!(1),
        "0.4.0" if request.has("VER-2") => json!("1.1.0"),
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
    let refused = request.commits(&[
        ("IO-9a", has(&["args"])),
        ("IO-9b", has(&["capabilities", "org.example.other"])),
        ("WIRE-5", has(&["runtimeConfig", "aliases"])),
        ("CAP-5", request.field(&["runtimeConfig"]).and_then(Value::as_object).is_some_and(Map::is_empty)),
    ]);
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
