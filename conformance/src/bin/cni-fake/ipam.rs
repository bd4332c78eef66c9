//! Giving out addresses: a lease is a number, which is the last part of an address of each family.

use serde_json::{Value, json};

use crate::Answer;
use crate::company::{is_crowded, meet};
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
        let host = if number == 3 && request.has_in("ipam", "IPA-2") { 1 } else { number };
        let mut ips = json!([
            { "address": format!("{}.{host}/24", self.v4), "gateway": format!("{}.1", self.v4) },
            { "address": format!("{}:{number:x}/64", self.v6), "gateway": format!("{}:1", self.v6) },
        ]);
        if request.has_in("results", "RES-8") {
            ips[0]["address"] = json!(format!("{}.{host}", self.v4));
        }
        if request.has_in("results", "RES-9") {
            ips[1]["gateway"] = json!(format!("{}.1", self.v4));
        }
        if number == 4 && request.has_in("ipam", "IPA-11") {
            ips[0]["address"] = json!(format!("{}.{host}/25", self.v4));
        }
        if number == 4 && request.has_in("ipam", "IPA-12") {
            ips.as_array_mut().map(Vec::pop);
        }
        if request.at_least("0.3.0") && request.has_in("results", "IPAM-4b") {
            ips[0]["interface"] = json!(0);
        }
        let dst = if request.has_in("results", "RES-10") { "10.1.2.3/8" } else { "0.0.0.0/0" };
        let mut routes = json!([{ "dst": dst }, { "dst": "::/0" }]);
        if request.field(&["ipam", "routes"]).is_some() {
            routes = json!([]);
        }
        let servers = if request.has_in("results", "RES-13") { json!("10.110.0.53") } else { json!(["10.110.0.53"]) };
        let mut result =
            json!({ "ips": ips, "routes": routes, "dns": { "nameservers": servers, "search": ["fake.test"] } });
        if request.has_in("results", "IPAM-4a") {
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
        let number = bare.strip_prefix(&format!("{}.", self.v4)).and_then(|text| text.parse().ok());
        match number {
            Some(number) => Ok(Some(number)),
            None if request.has("IPA-8") => Ok(None),
            None => Err(Failure::new(7, &format!("{text} is not in the pool"))),
        }
    }
}

fn add(request: &Request, store: &Store) -> Result<Value, Failure> {
    let pool = Pool::of(request);
    if !std::path::Path::new(&request.netns).exists() && request.has("IPA-5") {
        return Err(Failure::new(101, "there is no namespace"));
    }
    let wanted = pool.wanted(request)?;
    let careless = is_crowded()
        && request.about("concurrency")
        && request.commits(&[("IO-13b", pool.size > 16), ("IO-13f", pool.size <= 16)]);
    let chosen = if careless {
        // What was read before others wrote.
        let mut old = store.records();
        meet("read");
        let number = choose(request, &pool, &mut old, wanted)?;
        store.change(|records| Ok(records.insert(request.key(), json!(number)))).map(|_| number)
    } else {
        store.change(|records| choose(request, &pool, records, wanted))
    };
    if chosen.is_err() && request.has_in("ipam", "IPA-4") {
        store.change(|records| Ok(records.insert("full".to_owned(), json!(0))))?;
    }
    let number = chosen?;
    Ok(shaped(request, pool.lease(request, number)))
}

fn holder(records: &Records, number: u64) -> bool {
    records.values().any(|held| held.as_u64() == Some(number))
}

fn choose(request: &Request, pool: &Pool, records: &mut Records, wanted: Option<u64>) -> Result<u64, Failure> {
    let next = records.remove("next").and_then(|next| next.as_u64()).unwrap_or(2);
    let key = request.key();
    let again = records.get(&key).and_then(Value::as_u64).filter(|_| !request.has("ADD-9a"));
    let forgets = records.contains_key(&key) && again.is_none();
    let free = |number: &u64| !holder(records, *number);
    let found = match (again, wanted) {
        (Some(number), _) => Some(number),
        (None, Some(number)) if !free(&number) && request.has("IPA-7") => Some(number),
        (None, Some(number)) if free(&number) && request.has("IPA-6") => (2..number).find(free),
        (None, Some(number)) => Some(number).filter(free),
        (None, None) if request.has_in("ipam", "IPA-10") => (2..2 + pool.size).find(free),
        (None, None) if holder(records, 2) && request.has_in("add", "ADD-14") => Some(2),
        (None, None) if records.len() > 9 && request.has_in("ipam", "IPA-1") => Some(2),
        (None, None) => (next..2 + pool.size).chain(2..next).find(free),
    };
    let key = if forgets { format!("{key} {}", records.len()) } else { key };
    match found {
        Some(_) if records.contains_key("full") => Err(Failure::new(11, "full for ever")),
        Some(number) => {
            records.insert(key, json!(number));
            records.insert("next".to_owned(), json!(if number + 1 < 2 + pool.size { number + 1 } else { 2 }));
            Ok(number)
        }
        None if wanted.is_none() && request.has_in("ipam", "IPA-3") => {
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
    let missing = !store.records().contains_key(&request.key());
    let leaks = request.commits(&[
        ("DEL-1c", request.about("del") && !missing && !gone),
        ("DEL-3d", !missing && gone && !request.netns.is_empty()),
        ("DEL-5e", !missing && request.netns.is_empty()),
    ]);
    if missing && std::path::Path::new("/run/cni-fake").exists() && request.has_in("del", "DEL-2a") {
        return Err(Failure::new(101, "there is no such lease"));
    }
    if !missing
        && request.id.len() > 16
        && request.id.as_str() > "suite-container-20"
        && request.has_in("robustness", "KILL-4")
    {
        return Ok(None);
    }
    store.change(|records| {
        let keeps = leaks;
        if !keeps {
            records.remove(&request.key());
        }
        // A container whose id begins with this one's.
        let begins = |key: &str| key.starts_with(&request.id) && !key.starts_with(&format!("{} ", request.id));
        if records.keys().any(|key| begins(key)) && request.has_in("del", "DEL-8a") {
            records.retain(|key, _| !begins(key));
        }
        if used(records) >= Pool::of(request).size && request.has("STA-2b") {
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
    let lax = || request.commits(&[("CHK-4a", records.len() <= 1), ("CHK-4b", records.len() > 1)]);
    if records.contains_key(&request.key()) || lax() { Ok(None) } else { Err(Failure::new(101, "the lease is gone")) }
}

/// The keys that are still valid; `None` if the runtime gave no list.
pub fn valid(request: &Request) -> Option<Vec<String>> {
    let by = |key: &str| request.config.get(key);
    let (old, new) = (by("cni.dev/attachments"), by("cni.dev/valid-attachments"));
    let list = match (new, old) {
        (Some(_), None) if request.has("GC-7a") => Vec::new(),
        (Some(list), _) | (None, Some(list)) => list.as_array().cloned().unwrap_or_default(),
        (None, None) if request.has("GC-8a") => Vec::new(),
        (None, None) => return None,
    };
    let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let careful = |one: &&Value| !(list.len() > 1 && text(one, "ifname") != "net7" && request.has("GC-8c"));
    let key = |one: &Value| request.key_of(&text(one, "containerID"), &text(one, "ifname"));
    Some(list.iter().filter(careful).map(key).collect())
}

fn gc(request: &Request, store: &Store) -> Answer {
    let Some(valid) = valid(request) else { return Ok(None) };
    store.change(|records| {
        records.retain(|key, _| match key.as_str() {
            "next" => true,
            key if valid.iter().any(|one| one == key) => !request.has("GC-1d"),
            _ => valid.is_empty() && request.has("GC-1b"),
        });
        Ok(None)
    })
}

fn status(request: &Request, store: &Store) -> Answer {
    let records = store.records();
    let full = used(&records) >= Pool::of(request).size;
    if (full && !request.has("STA-2a")) || records.contains_key("was-full") {
        return Err(Failure::new(50, "no addresses are left"));
    }
    Ok(None)
}

/// How many leases there are.
fn used(records: &Records) -> u64 {
    let used = records.iter().filter(|(key, held)| *key != "next" && held.is_number()).count();
    u64::try_from(used).unwrap_or_default()
}
