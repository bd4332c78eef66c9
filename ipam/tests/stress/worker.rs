//! One process: ADD, DEL, CHECK, GC and STATUS, as it comes, until it is killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cni_spec::{Attachment, CniArgs, CniResult, NetConf, ValidAttachment, ValidAttachments};
use ipam::{Ipam, Lease, LeaseRequest, Netns};

use crate::Dice;
use crate::journal::{Claims, Journal, Known};

const CONTAINERS: u64 = 6;

/// What may keep requests from being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The ledger is held for longer than anybody waits.
    Busy,
    /// There is no space.
    Full,
}

/// Where it happens, and who this process is.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Where notes are; never full.
    pub place: PathBuf,
    pub data_dir: PathBuf,
    pub lock_timeout: u64,
    pub trouble: Trouble,
    pub index: usize,
    pub seed: u64,
}

impl Scene {
    pub const VARIABLE: &'static str = "IPAM_STRESS_SCENE";

    pub fn new(place: &Path) -> Self {
        fs::create_dir_all(place.join("claims")).unwrap();
        fs::create_dir_all(place.join("journals")).unwrap();
        fs::create_dir_all(place.join("netns")).unwrap();
        let data_dir = place.join("ledger-dir");
        Self { place: place.to_owned(), data_dir, lock_timeout: 300, trouble: Trouble::None, index: 0, seed: 0 }
    }

    #[expect(clippy::disallowed_methods, reason = "how a process knows that it is one of them")]
    pub fn of_environment() -> Option<Self> {
        let text = std::env::var(Self::VARIABLE).ok()?;
        let parts: Vec<&str> = text.split('|').collect();
        Some(Self {
            place: parts[0].into(),
            data_dir: parts[1].into(),
            lock_timeout: parts[2].parse().unwrap(),
            trouble: match parts[3] {
                "None" => Trouble::None,
                "Busy" => Trouble::Busy,
                "Full" => Trouble::Full,
                other => panic!("{other}"),
            },
            index: parts[4].parse().unwrap(),
            seed: parts[5].parse().unwrap(),
        })
    }

    pub fn to_text(&self) -> String {
        let (place, data_dir) = (self.place.display(), self.data_dir.display());
        let Self { lock_timeout, trouble, index, seed, .. } = self;
        format!("{place}|{data_dir}|{lock_timeout}|{trouble:?}|{index}|{seed}")
    }

    pub fn network(&self) -> String {
        format!("n{}", self.index)
    }

    pub fn conf(&self) -> NetConf {
        let conf = crate::conf(&self.data_dir, &self.network(), self.lock_timeout);
        NetConf::from_bytes(conf.to_string().into_bytes()).unwrap()
    }

    pub fn journal(&self) -> Journal {
        Journal::at(self.place.join("journals").join(self.network()))
    }

    pub fn claims(&self) -> Claims {
        Claims::at(&self.place.join("claims"))
    }

    pub fn attachment(&self, container: &str) -> Attachment {
        Attachment {
            network: self.network().parse().unwrap(),
            container_id: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        }
    }

    /// How many operations there were, by all.
    pub fn count(&self) -> u64 {
        fs::metadata(self.place.join("count")).map_or(0, |meta| meta.len())
    }

    pub fn violations(&self) -> String {
        fs::read_to_string(self.place.join("violations")).unwrap_or_default()
    }

    fn append(&self, file: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.place.join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn violation(&self, what: &str) {
        self.append("violations", &format!("{}: {what}\n", self.network()));
    }

    /// An error that there may be, or one that there must not be. DEL has none: it is carried out, or written down.
    fn refused(&self, what: &str, error: &ipam::Error) {
        let expected: &[u32] = match (self.trouble, what) {
            // It waits for two seconds at the most, and this crowd is larger than that.
            (_, "STATUS") => &[50],
            (Trouble::Busy, "ADD" | "CHECK" | "GC") => &[11],
            (Trouble::Full, "ADD" | "CHECK") => &[5],
            _ => &[],
        };
        let code = error.code().number();
        if !expected.contains(&code) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            self.violation(&format!("{what} failed with {code}: {error} ({source:?})"));
        }
    }

    pub fn is_full_at_times(&self) -> bool {
        self.trouble == Trouble::Full
    }

    /// How many ADDs were deleted while they were under way.
    pub fn given_up(&self) -> u64 {
        fs::metadata(self.place.join("given-up")).map_or(0, |meta| meta.len())
    }
}

/// Goes on until it is killed.
pub fn work(scene: &Scene) {
    let mut dice = Dice::of(scene.seed * 1000 + scene.index as u64);
    loop {
        let container = format!("c{}", dice.below(CONTAINERS));
        match dice.below(20) {
            0..9 => add(scene, &container),
            9..14 => del(scene, &container),
            14 | 15 => give_up(scene, &container, &mut dice),
            16 | 17 => check(scene, &container),
            18 => gc(scene),
            _ => status(scene),
        }
        scene.append("count", ".");
    }
}

fn ipam(scene: &Scene) -> Ipam {
    Ipam::from_config(&scene.conf()).unwrap()
}

fn owner(scene: &Scene, container: &str) -> String {
    format!("{} {container}", scene.network())
}

fn addresses(lease: &Lease) -> Vec<IpAddr> {
    lease.addresses.iter().map(|leased| leased.address.ip()).collect()
}

fn request(scene: &Scene, container: &str) -> LeaseRequest {
    let netns = scene.place.join("netns").join(owner(scene, container));
    if !netns.exists() {
        fs::write(&netns, "").unwrap();
    }
    LeaseRequest { attachment: scene.attachment(container), netns: Netns::at(&netns), args: CniArgs::default() }
}

fn add(scene: &Scene, container: &str) {
    let journal = scene.journal();
    let before = journal.read().remove(container);
    // What was leased stays known while it is asked for again.
    if !matches!(before, Some(Known::Leased(_))) {
        journal.write(container, &Known::Unknown);
    }
    match ipam(scene).lease(&request(scene, container)) {
        Ok(lease) => {
            let ips = addresses(&lease);
            if let Some(Known::Leased(before)) = before
                && before != ips
            {
                scene.violation(&format!("{container} had {before:?}, and now has {ips:?}"));
            }
            for address in &ips {
                if let Some(holder) = scene.claims().claim(*address, &owner(scene, container)) {
                    scene.violation(&format!("{address} was given to {container}, but {holder} has it"));
                }
            }
            journal.write(container, &Known::Leased(ips));
        }
        Err(error) => scene.refused("ADD", &error),
    }
}

fn del(scene: &Scene, container: &str) {
    scene.journal().write(container, &Known::Unknown);
    scene.claims().disclaim(&owner(scene, container));
    match ipam(scene).release(&scene.attachment(container)) {
        Ok(_) => scene.journal().write(container, &Known::Gone),
        Err(error) => scene.refused("DEL", &error),
    }
}

fn check(scene: &Scene, container: &str) {
    let Some(Known::Leased(ips)) = scene.journal().read().remove(container) else { return };
    let ips = ips.into_iter().map(|ip| cni_spec::IpConfig { address: ip.into(), gateway: None, interface: None });
    let result = CniResult { ips: ips.collect(), ..CniResult::default() };
    if let Err(error) = ipam(scene).check(&scene.attachment(container), &result) {
        scene.refused("CHECK", &error);
    }
}

/// Ends what is not known to be leased.
fn gc(scene: &Scene) {
    let mut valid = ValidAttachments::default();
    let mut doubtful = Vec::new();
    for (container, known) in scene.journal().read() {
        if matches!(known, Known::Leased(_)) {
            let attachment = scene.attachment(&container);
            valid.0.insert(ValidAttachment { container_id: attachment.container_id, ifname: attachment.ifname });
        } else {
            scene.claims().disclaim(&owner(scene, &container));
            doubtful.push(container);
        }
    }
    match ipam(scene).gc(&scene.network().parse().unwrap(), &valid) {
        Ok(_) => doubtful.iter().for_each(|container| scene.journal().write(container, &Known::Gone)),
        Err(error) => scene.refused("GC", &error),
    }
}

fn status(scene: &Scene) {
    if let Err(error) = ipam(scene).status() {
        scene.refused("STATUS", &error);
    }
}

/// A runtime that does not wait for its ADD, and sends DEL while that is under way still: whichever of them gets the
/// ledger first, nothing is leased in the end.
fn give_up(scene: &Scene, container: &str, dice: &mut Dice) {
    scene.journal().write(container, &Known::Unknown);
    scene.claims().disclaim(&owner(scene, container));
    let adding = ipam(scene);
    let patience = Duration::from_micros(2_000 + dice.below(20_000));
    let (added, deleted) = thread::scope(|scope| {
        let add = scope.spawn(|| adding.lease(&request(scene, container)));
        // Not to wait for something, but to strike at some moment.
        thread::sleep(patience);
        let deleted = ipam(scene).release(&scene.attachment(container));
        (add.join().unwrap(), deleted)
    });
    if let Err(error) = added
        && error.code() != ipam::code::DELETED
    {
        scene.refused("ADD", &error);
    }
    match deleted {
        Ok(_) => scene.journal().write(container, &Known::Gone),
        Err(error) => scene.refused("DEL", &error),
    }
    scene.append("given-up", ".");
}
