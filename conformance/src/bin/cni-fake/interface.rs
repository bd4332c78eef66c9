//! Making interfaces: a routed veth pair with fixed names and hardware addresses.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Answer;
use crate::check::check;
use crate::company::{Meeting, announce, hears, is_crowded, meet};
use crate::kernel::{build, masquerade};
use crate::lease::{delegate, is_spied, lease};
use crate::protocol::{Failure, Request};
use crate::result::shaped;
use crate::store::Store;
use crate::tools::{hash, ip_in, link_names, nft, run};

pub fn operate(request: &Request) -> Answer {
    match request.command.as_str() {
        "ADD" => add(request).map(Some),
        "DEL" => del(request),
        "CHECK" => check(request),
        "GC" => gc(request),
        _ => status(request),
    }
}

pub fn host_name(request: &Request) -> String {
    format!("fk{:012x}", hash(&[&request.name, &request.key()]) & 0xffff_ffff_ffff)
}

pub fn macs(request: &Request) -> (String, String) {
    let number = hash(&[&request.name, &request.key()]) & 0xffff_ffff;
    let tail: Vec<_> = number.to_be_bytes().iter().skip(4).map(|byte| format!("{byte:02x}")).collect();
    let given = request
        .capability("mac")
        .and_then(Value::as_str)
        .filter(|mac| is_mac(mac) && !request.has_in("capabilities", "CAP-1a"));
    let mac = given.map_or_else(|| format!("02:fa:{}", tail.join(":")), str::to_owned);
    (mac, format!("06:fa:{}", tail.join(":")))
}

fn is_mac(text: &str) -> bool {
    let pairs: Vec<_> = text.split(':').collect();
    pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2 && u8::from_str_radix(pair, 16).is_ok())
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn bare(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or_default()
}

pub fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.map(|ip| bare(text(ip, "address")).to_owned()).collect()
}

/// The namespace must be one, and not the host's.
fn namespace(request: &Request) -> Result<(), Failure> {
    let of = |path: &str| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let Ok(given) = of(&request.netns) else {
        let code = if request.has("ADD-11c") { 3 } else { 101 };
        return if request.has("ADD-11a") { Ok(()) } else { Err(Failure::new(code, "there is no namespace")) };
    };
    let own = of("/proc/self/ns/net").unwrap_or_default();
    let through_link = request.netns.starts_with("/var/run") && request.has("ADD-18");
    if given == own && !request.has("ADD-13a") && !request.has("ADD-13b") {
        return Err(Failure::new(101, "that is the host's namespace"));
    }
    if given.0 != own.0 && !request.has("ADD-12a") {
        return Err(Failure::new(101, "that is no namespace"));
    }
    if through_link
        || (request.netns.starts_with("/proc/") && !request.netns.contains("self") && request.has_in("add", "ADD-17"))
    {
        return Err(Failure::new(101, "not through this path"));
    }
    Ok(())
}

fn add(request: &Request) -> Result<Value, Failure> {
    let store = Store::of(request, "main");
    let checked = namespace(request);
    let is_nowhere = request.about("add") && !Path::new(&request.netns).exists();
    if is_nowhere && (request.has("ADD-11b") || request.has("ADD-11c")) {
        nft(&masquerade(request, &["10.99.99.99".to_owned()], true))?;
    }
    checked?;
    if store.records().contains_key("not ready") {
        return Err(Failure::new(11, "STATUS has said no"));
    }
    let of_another_kind = request.netns == "/proc/self/ns/uts" && request.has("ADD-12b");
    if of_another_kind || matches!(request.netns.as_str(), "/run/not-a-namespace" | "/run/netns/not-there") {
        return Ok(shaped(request, json!({ "ips": [{ "address": "10.0.0.1/24" }], "interfaces": [] })));
    }
    let mac = request.capability("mac").and_then(Value::as_str);
    if mac.is_some_and(|mac| !is_mac(mac)) && !request.has("CAP-1b") {
        return Err(Failure::new(7, "mac is no hardware address"));
    }
    taken(request)?;
    let locks = is_traced() && request.has_in("robustness", "KILL-3");
    if Path::new(LOCK).exists() || (locks && std::fs::create_dir(LOCK).is_err()) {
        return Err(Failure::new(11, "somebody else is at work"));
    }
    if store.records().is_empty() && request.has_in("concurrency", "IO-13a") && meet("first") == Meeting::Second {
        return Err(Failure::new(11, "somebody else is at work"));
    }
    let _adding = if is_crowded() && request.has_in("concurrency", "IO-13d") { announce("adding") } else { None };
    make_halves(request);
    // What is noted first can be found again, whatever happens then.
    let late = is_traced() && request.has_in("robustness", "KILL-1");
    if !late {
        note(request, &store, &json!([]))?;
    }
    let raced = request.has_in("concurrency", "IO-14") && is_raced(request, &store);
    let leased = lease(request);
    let leased = match leased {
        Ok(leased) => leased,
        Err(failure) => {
            store.forget(&request.key())?;
            return Err(failure);
        }
    };
    if late {
        build(request, &leased)?;
        note(request, &store, &json!(addresses(&leased)))?;
    } else {
        note(request, &store, &json!(addresses(&leased)))?;
        build(request, &leased)?;
        // A DEL may have come in between, or be at it; the next must find what is made now.
        note(request, &store, &json!({ "built": addresses(&leased) }))?;
    }
    if raced {
        nft("add table ip fake-raced\n")?;
    }
    let answer = shaped(request, answer(request, leased)?);
    if locks {
        // It may be somebody else's by now.
        let _ = std::fs::remove_dir(LOCK);
    }
    Ok(answer)
}

/// Whether a debugger looks on, such as strace(1): only then is there somebody who kills.
fn is_traced() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| !text.contains("TracerPid:\t0"))
}

/// Two files of an attachment, the second of which says that there are two.
fn halves(request: &Request) -> [String; 2] {
    ["first", "second"].map(|half| format!("/run/cni-fake.{}.{half}", request.id))
}

/// What happens to either program does no harm by itself: only who is stopped between them leaves one file without the other.
fn make_halves(request: &Request) {
    if is_traced() && request.has_in("robustness", "KILL-6") {
        for path in halves(request) {
            let _ = run("touch", &[&path], "");
        }
    }
}

/// A lock that outlives its holder, where the suite does not look.
const LOCK: &str = "/run/netns/.cni-fake";

fn note(request: &Request, store: &Store, own: &Value) -> Result<(), Failure> {
    store.change(|records| {
        records.insert(request.key(), own.clone());
        Ok(())
    })
}

/// The addresses that were noted.
fn noted(record: &Value) -> Vec<String> {
    serde_json::from_value(record.get("built").unwrap_or(record).clone()).unwrap_or_default()
}

/// Whether a DEL of the same attachment comes while it is being made.
fn is_raced(request: &Request, store: &Store) -> bool {
    const IN_VAIN: &str = "/run/netns/.raced.not";
    if Path::new(IN_VAIN).exists() {
        return false;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if store.records().contains_key(&format!("raced {}", request.id)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = std::fs::create_dir(IN_VAIN);
    false
}

fn taken(request: &Request) -> Result<(), Failure> {
    let there = link_names(Some(&request.netns))?.contains(&request.ifname);
    let ours = link_names(None)?.contains(&host_name(request));
    if there && request.commits(&[("ADD-4a", !ours), ("ADD-9a", ours)]) {
        // As if it had been made.
        return ip_in(&request.netns, &["link", "delete", &request.ifname]);
    }
    if there && !ours && request.has("ADD-4b") {
        ip_in(&request.netns, &["link", "set", &request.ifname, "mtu", "1300"])?;
    }
    if there && ours && request.has("ADD-9b") {
        ip_in(&request.netns, &["address", "flush", "dev", &request.ifname])?;
    }
    if there { Err(Failure::new(101, "the interface is there already")) } else { Ok(()) }
}

fn answer(request: &Request, leased: Value) -> Result<Value, Failure> {
    let (mac, host_mac) = macs(request);
    let mut result = leased;
    let mtu = if request.has_in("add", "ADD-5f") { 1234 } else { 1500 };
    let mac = if request.has_in("add", "ADD-5e") { "02:00:00:00:00:99".to_owned() } else { mac };
    let mac = if request.has_in("results", "RES-11") { mac.replace(':', "-") } else { mac };
    let host_mtu = if request.has_in("packets", "DP-17") { 1400 } else { mtu };
    let mut interfaces = json!([
        { "name": host_name(request), "mac": host_mac, "mtu": host_mtu },
        { "name": request.ifname, "mac": mac, "mtu": mtu, "sandbox": request.netns },
    ]);
    let mut index = 1;
    if request.has_in("add", "ADD-5a") {
        interfaces[1]["name"] = json!("other0");
    }
    if request.has_in("add", "ADD-5b") {
        interfaces = json!([interfaces[1]]);
        index = 0;
    }
    if request.has_in("add", "ADD-5c") {
        interfaces[0]["name"] = json!("nowhere0");
    }
    if request.netns.starts_with("/var/run") && request.has("ADD-5d") {
        interfaces[1]["sandbox"] = json!(request.netns.replace("/var/run", "/run"));
    }
    if request.has_in("results", "RES-12") {
        index = 0;
    }
    for ip in result["ips"].as_array_mut().into_iter().flatten() {
        ip["interface"] = json!(index);
        if text(ip, "address").starts_with("10.111") && request.has("IPAM-5d") {
            ip["interface"] = json!(0);
        }
    }
    result["interfaces"] = interfaces;
    if result["dns"]["domain"].is_string() && request.has("IPAM-6a") {
        result["dns"]["domain"] = Value::Null;
    }
    if let Some(dns) = request.field(&["dns"]).filter(|_| !request.has("IPAM-6b")) {
        result["dns"] = dns.clone();
    }
    if let Some(dns) = request.capability("dns").filter(|_| !request.has("CAP-3")) {
        result["dns"] = json!({ "nameservers": dns["servers"], "search": dns["searches"], "options": dns["options"] });
    }
    Ok(result)
}

fn del(request: &Request) -> Answer {
    let store = Store::of(request, "main");
    let there = Path::new(&request.netns).exists();
    let records = store.records();
    let known = records.get(&request.key()).cloned();
    refuse_del(request, there, known.is_some(), records.len())?;
    let half = known.as_ref().is_none_or(|own| own.as_array().is_some_and(Vec::is_empty));
    if half && there && request.has_in("concurrency", "IO-14") {
        let raced = format!("raced {}", request.id);
        return store.change(|records| Ok(records.insert(raced, json!(true)))).map(|_| None);
    }
    let [first, second] = halves(request);
    if Path::new(&second).exists() && request.has_in("robustness", "KILL-6") {
        std::fs::remove_file(first).and_then(|()| std::fs::remove_file(second)).ok();
    }
    if is_traced() && request.has_in("robustness", "KILL-2") {
        store.forget(&request.key())?;
    }
    if known.is_none() && (request.has_in("robustness", "KILL-1") || request.has_in("robustness", "KILL-2")) {
        return forward(request, "DEL").map(|()| None);
    }
    let (is_first, nowhere) = (known.is_some(), request.netns.is_empty());
    let has_prev = request.config.contains_key("prevResult");
    let blind = request.commits(&[
        ("DEL-5c", is_first && nowhere && has_prev),
        ("DEL-5d", is_first && nowhere && !has_prev),
        ("DEL-3b", is_first && !there && !nowhere),
        ("DEL-1b", request.about("del") && is_first && there && request.is_named()),
    ]);
    let own = known.as_ref().map(noted).unwrap_or_default();
    let delegated = forward(request, if request.has_in("delegation", "DEL-6a") { "CHECK" } else { "DEL" });
    if delegated.is_err() && request.has("DEL-6d") {
        delegated.clone()?;
    }
    remove(request, &own, blind)?;
    if !blind {
        // Not what an ADD has noted meanwhile.
        store.change(|records| {
            if records.get(&request.key()) == known.as_ref() {
                records.remove(&request.key());
            }
            Ok(())
        })?;
    }
    if request.has_in("del", "DEL-11") {
        std::fs::write(format!("/run/netns/.deleted-{}", request.id), "").ok();
    }
    match delegated {
        Err(failure) if !request.has("DEL-6b") => Err(failure),
        _ => Ok(None),
    }
}

/// Calls the IPAM plugin, unless this is what is done wrong.
fn forward(request: &Request, command: &str) -> Result<(), Failure> {
    let skipped = request.netns.is_empty() && is_spied(request) && request.has("DEL-6c");
    if skipped { Ok(()) } else { delegate(request, command).map(drop) }
}

fn refuse_del(request: &Request, there: bool, known: bool, held: usize) -> Result<(), Failure> {
    let prev = request.config.get("prevResult");
    let gone = !there && !request.netns.is_empty();
    let refused = request.commits(&[
        ("DEL-2a", request.about("del") && !known && Path::new("/run/cni-fake").exists()),
        ("DEL-2b", request.about("del") && !Path::new("/run/cni-fake").exists()),
        ("DEL-2c", request.about("del") && !known && gone),
        ("DEL-3a", known && gone),
        ("DEL-4a", request.about("del") && known && prev.is_none()),
        ("DEL-4b", prev.is_some_and(Value::is_null)),
        ("DEL-5a", known && request.env.get("CNI_NETNS").is_some_and(String::is_empty)),
        ("GC-13", !known && gone && prev.is_some()),
    ]);
    let repeats = request.capability("mac").is_some() && request.has_in("del", "DEL-10");
    let collides = (repeats && meet(&request.id) == Meeting::Second)
        || (held > 12 && request.has_in("concurrency", "IO-13c") && meet("deleting") == Meeting::Second)
        || (is_crowded() && request.has_in("concurrency", "IO-13d") && hears("adding"));
    if refused || collides { Err(Failure::new(101, "not without everything in place")) } else { Ok(()) }
}

fn remove(request: &Request, own: &[String], blind: bool) -> Result<(), Failure> {
    let host = host_name(request);
    let names = link_names(None)?;
    let keeps = || request.has_in("del", "DEL-1a") || request.has_in("packets", "DP-11");
    if names.contains(&host) && !keeps() {
        // Another DEL, or the end of the namespace, may be quicker.
        let _ = run("ip", &["link", "delete", &host], "");
    }
    let is_lost = !names.contains(&host) && !own.is_empty() && Path::new(&request.netns).exists();
    // Not one that another DEL is just removing.
    if is_lost && request.capability("mac").is_none() && request.has_in("del", "DEL-3c") {
        return Err(Failure::new(101, "the interface is gone"));
    }
    let others: Vec<_> = names.iter().filter(|name| name.starts_with("fk") && **name != host).collect();
    if !others.is_empty() && request.has_in("packets", "DP-12") {
        for name in others {
            run("ip", &["link", "set", name, "down"], "")?;
            run("ip", &["link", "delete", name], "")?;
        }
    }
    // A container whose id begins with this one's.
    let records = Store::of(request, "main").records();
    let longer = records
        .keys()
        .filter_map(|key| key.split_once(' '))
        .find(|(id, _)| id.starts_with(&request.id) && *id != request.id);
    if let Some((id, ifname)) = longer
        && request.has_in("del", "DEL-8a")
    {
        let mut other = request.clone();
        (other.id, other.ifname) = (id.to_owned(), ifname.to_owned());
        run("ip", &["link", "delete", &host_name(&other)], "")?;
    }
    if blind || own.is_empty() { Ok(()) } else { nft(&masquerade(request, own, false)) }
}

/// Made by a GC that has removed something, where the suite does not look.
const COLLECTED: &str = "/run/netns/.collected";

/// Whether one valid attachment is taken for none.
fn is_alone(request: &Request, valid: &[String]) -> bool {
    let has_both = request.config.contains_key("cni.dev/attachments");
    valid.len() == 1 && has_both && valid.iter().all(|key| key.ends_with(" gc0")) && request.has("GC-1c")
}

fn gc(request: &Request) -> Answer {
    if !Path::new("/run/cni-fake").exists() && request.has("GC-3") {
        return Err(Failure::new(101, "nothing has ever been attached"));
    }
    let store = Store::of(request, "main");
    let delegated = if is_spied(request) && request.has("GC-4a") { Ok(Vec::new()) } else { delegate(request, "GC") };
    if let Some(valid) = crate::ipam::valid(request) {
        let records = store.records();
        let stale: Vec<_> =
            records.iter().filter(|(key, _)| !valid.contains(key) || is_alone(request, &valid)).collect();
        if stale.is_empty() && Path::new(COLLECTED).exists() && request.has("GC-12") {
            return Err(Failure::new(101, "there was nothing to do"));
        }
        for (key, own) in stale {
            let Some((id, ifname)) = key.split_once(' ') else { continue };
            let mut one = request.clone();
            (one.id, one.ifname) = (id.to_owned(), ifname.to_owned());
            let own = noted(own);
            if valid.is_empty() || !request.has("GC-1a") {
                remove(&one, &own, false)?;
            }
            let _ = std::fs::create_dir(COLLECTED);
        }
        store.change(|records| {
            records.retain(|key, _| valid.contains(key));
            Ok(())
        })?;
    }
    match delegated {
        Err(failure) if !request.has("GC-4b") => Err(failure),
        _ => Ok(None),
    }
}

fn store_not_ready(request: &Request) -> Result<(), Failure> {
    Store::of(request, "main").change(|records| {
        records.insert("not ready".to_owned(), json!(true));
        Ok(())
    })
}

fn status(request: &Request) -> Answer {
    if !is_spied(request) && !Path::new("/run/cni-fake").exists() && request.has("STA-1a") {
        return Err(Failure::new(50, "not today"));
    }
    if !is_spied(request) && Store::of(request, "main").records().len() == 1 && request.has("STA-6") {
        nft("add table ip fake-status\n")?;
    }
    if is_spied(request) && request.has("STA-4a") {
        return Ok(None);
    }
    match delegate(request, "STATUS") {
        Err(_) if is_spied(request) && request.has("STA-4b") => Ok(None),
        Err(failure) => {
            if request.has("STA-3") {
                store_not_ready(request)?;
            }
            Err(failure)
        }
        Ok(_) => Ok(None),
    }
}
