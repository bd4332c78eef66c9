//! Giving out addresses: a lease is a number, which is the last part of an address of each family.

use serde_json::{Value, json};

use crate::Answer;
use crate::protocol::{Failure, Request};
use crate::result::shaped;
use crate::store::{Records, Store};

pub fn operate(request: &Request) -> Answer {
    let store = Store::of(request, "leases");
    match request.command.as_str() {
        "ADD" => add(request, &store).map(Some),
        "DEL" => del(request, &store),
        "CHECK" => check(request, &store),
        "GC" => gc(request, &store),
        _ => status(request, &store),
    }
}

/// How many leases there are, and where they are.
struct Pool {
    v4: String,
    v6: String,
    size: u64,
}

impl Pool {
    fn of(request: &Request) -> Self {
        let text = |key: &str, default: &str| {
            request.field(&["ipam", key]).and_then(Value::as_str).unwrap_or(default).to_owned()
        };
        let size = request.field(&["ipam", "size"]).and_then(Value::as_u64).unwrap_or(200);
        let given = request.capability("ipRanges").and_then(|ranges| ranges.pointer("/0/0/subnet")?.as_str());
        let given = given.and_then(|subnet| subnet.strip_suffix(".0/24")).filter(|_| !request.has("CAP-4"));
        Self { v4: given.map_or_else(|| text("v4", "10.110.0"), str::to_owned), v6: text("v6", "fd00:110:"), size }
    }

    fn lease(&self, request: &Request, number: u64) -> Value {
        let host = if request.has("IPA-2") && number == 3 { 1 } else { number };
        let mut ips = json!([
            { "address": format!("{}.{host}/24", self.v4), "gateway": format!("{}.1", self.v4) },
            { "address": format!("{}:{number:x}/64", self.v6), "gateway": format!("{}:1", self.v6) },
        ]);
        match request.cause() {
            "RES-8" => ips[0]["address"] = json!(format!("{}.{host}", self.v4)),
            "RES-9" => ips[1]["gateway"] = json!(format!("{}.1", self.v4)),
            "IPA-11" if number == 4 => ips[0]["address"] = json!(format!("{}.{host}/25", self.v4)),
            "IPA-12" if number == 4 => {
                ips.as_array_mut().map(Vec::pop);
            }
            "IPAM-4b" if request.at_least("0.3.0") => ips[0]["interface"] = json!(0),
            _ => {}
        }
        let dst = if request.has("RES-10") { "10.1.2.3/8" } else { "0.0.0.0/0" };
        let mut routes = json!([{ "dst": dst }, { "dst": "::/0" }]);
        if request.field(&["ipam", "routes"]).is_some() {
            routes = json!([]);
        }
        let servers = if request.has("RES-13") { json!("10.110.0.53") } else { json!(["10.110.0.53"]) };
        let mut result =
            json!({ "ips": ips, "routes": routes, "dns": { "nameservers": servers, "search": ["fake.test"] } });
        if request.has("IPAM-4a") {
            result["interfaces"] = json!([{ "name": "eth0" }]);
        }
        result
    }

    /// The number that somebody asks for.
    fn wanted(&self, request: &Request) -> Result<Option<u64>, Failure> {
        let Some(asked) = request.capability("ips").and_then(Value::as_array) else { return Ok(None) };
        let Some(text) = asked.first().and_then(Value::as_str) else { return Ok(None) };
        let bare = text.split('/').next().unwrap_or_default();
        let Ok(_) = bare.parse::<std::net::IpAddr>() else {
            return if request.has("IPA-9") { Ok(None) } else { Err(Failure::new(7, &format!("no address: {text}"))) };
        };
        if request.has("IPA-6") {
            return Ok(None);
        }
        let number = bare.strip_prefix(&format!("{}.", self.v4)).and_then(|text| text.parse().ok());
        match number {
            Some(number) => Ok(Some(number)),
            None if request.has("IPA-8") => Ok(None),
            None => Err(Failure::new(7, &format!("{text} is not in the pool"))),
        }
    }
}

impl Request {
    /// The case that it does wrong, for matching.
    pub fn cause(&self) -> &str {
        ["RES-8", "RES-9", "IPA-11", "IPA-12", "IPAM-4b"].into_iter().find(|case| self.has(case)).unwrap_or_default()
    }
}

fn add(request: &Request, store: &Store) -> Result<Value, Failure> {
    let pool = Pool::of(request);
    if request.has("IPA-5") && !std::path::Path::new(&request.netns).exists() {
        return Err(Failure::new(101, "there is no namespace"));
    }
    let wanted = pool.wanted(request)?;
    let chosen = store.change(|records| choose(request, &pool, records, wanted));
    if request.has("IPA-4") && chosen.is_err() {
        store.change(|records| Ok(records.insert("full".to_owned(), json!(0))))?;
    }
    let number = chosen?;
    if request.has("CHK-13") || request.has("CHK-4a") {
        std::fs::write(format!("/run/cni-fake/{}.ever", request.name), "").ok();
    }
    Ok(shaped(request, pool.lease(request, number)))
}

fn holder(records: &Records, number: u64) -> bool {
    records.values().any(|held| held.as_u64() == Some(number))
}

fn choose(request: &Request, pool: &Pool, records: &mut Records, wanted: Option<u64>) -> Result<u64, Failure> {
    let next = records.remove("next").and_then(|next| next.as_u64()).unwrap_or(2);
    let key = request.key();
    let again = records.get(&key).and_then(Value::as_u64).filter(|_| !request.has("ADD-9a"));
    let free = |number: &u64| !holder(records, *number);
    let found = match (again, wanted) {
        (Some(number), _) => Some(number),
        (None, Some(number)) if request.has("IPA-7") => Some(number),
        (None, Some(number)) => Some(number).filter(free),
        (None, None) if request.has("IPA-10") => (2..2 + pool.size).find(free),
        (None, None) if request.has("ADD-14") || (request.has("IPA-1") && records.len() > 9) => Some(2),
        (None, None) => (next..2 + pool.size).chain(2..next).find(free),
    };
    let key = if request.has("ADD-9a") { format!("{key} {}", records.len()) } else { key };
    let key = if request.has("WIRE-7") { request.ifname.clone() } else { key };
    match found {
        Some(_) if records.contains_key("full") => Err(Failure::new(11, "full for ever")),
        Some(number) => {
            records.insert(key, json!(number));
            records.insert("next".to_owned(), json!(if number + 1 < 2 + pool.size { number + 1 } else { 2 }));
            Ok(number)
        }
        None if request.has("IPA-3") => {
            records.insert("next".to_owned(), json!(next));
            Ok(2)
        }
        None => {
            records.insert("next".to_owned(), json!(next));
            Err(Failure::new(11, "no addresses are left"))
        }
    }
}

fn del(request: &Request, store: &Store) -> Answer {
    let gone = !std::path::Path::new(&request.netns).exists();
    let leaks = request.has("DEL-1c")
        || (request.has("DEL-3d") && gone && !request.netns.is_empty())
        || (request.has("DEL-5e") && request.netns.is_empty());
    let missing = !store.records().contains_key(&request.key());
    if missing && request.has("DEL-2a") {
        return Err(Failure::new(101, "there is no such lease"));
    }
    if request.has("KILL-4") && request.id.len() > 16 && request.id.as_str() > "suite-container-20" {
        return Ok(None);
    }
    store.change(|records| {
        let keeps = leaks || (request.has("KILL-4") && missing);
        if !keeps {
            records.remove(&request.key());
        }
        if request.has("STA-2b") {
            records.insert("was-full".to_owned(), json!(0));
        }
        Ok(None)
    })
}

fn check(request: &Request, store: &Store) -> Answer {
    let has_prev = request.config.get("prevResult").is_some_and(|prev| !prev.is_null());
    if !has_prev && !request.has("CHK-1b") {
        return Err(Failure::new(7, "there is no prevResult"));
    }
    let records = store.records();
    let lax = match request.ifname.as_str() {
        _ if request.has("CHK-4a") || request.has("CHK-13") => {
            records.contains_key(&request.key())
                || std::path::Path::new(&format!("/run/cni-fake/{}.ever", request.name)).exists()
        }
        _ if request.has("CHK-4b") => !records.is_empty(),
        _ => records.contains_key(&request.key()),
    };
    if lax { Ok(None) } else { Err(Failure::new(101, "the lease is gone")) }
}

/// The keys that are still valid; `None` if the runtime gave no list.
pub fn valid(request: &Request) -> Option<Vec<String>> {
    let by = |key: &str| request.config.get(key);
    let list = if request.has("GC-7a") { by("cni.dev/attachments") } else { by("cni.dev/valid-attachments") };
    let list = match (list, request.has("GC-8a") || request.has("GC-7a")) {
        (Some(Value::Null), _) if request.has("GC-8b") => return None,
        (Some(list), _) => list.as_array().cloned().unwrap_or_default(),
        (None, true) => Vec::new(),
        (None, false) => return None,
    };
    let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let careful = |one: &&Value| !(request.has("GC-8c") && list.len() > 1 && text(one, "ifname") == "eth0");
    let key = |one: &Value| {
        if request.key() == request.id {
            text(one, "containerID")
        } else {
            format!("{} {}", text(one, "containerID"), text(one, "ifname"))
        }
    };
    Some(list.iter().filter(careful).map(key).collect())
}

fn gc(request: &Request, store: &Store) -> Answer {
    let Some(valid) = valid(request) else { return Ok(None) };
    store.change(|records| {
        let stale_is_kept = request.has("GC-1b") || request.has("GC-1a");
        records.retain(|key, _| {
            key == "next"
                || stale_is_kept
                || (valid.contains(key) && !request.has("GC-1d") && !request.has("GC-1c")) && !request.has("GC-11")
        });
        Ok(None)
    })
}

fn status(request: &Request, store: &Store) -> Answer {
    let records = store.records();
    let used = records.iter().filter(|(key, held)| *key != "next" && held.is_number()).count();
    let full = u64::try_from(used).unwrap_or_default() >= Pool::of(request).size;
    if (full && !request.has("STA-2a")) || records.contains_key("was-full") {
        return Err(Failure::new(50, "no addresses are left"));
    }
    Ok(None)
}
