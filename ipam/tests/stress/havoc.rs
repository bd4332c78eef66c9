//! What befalls the ledger besides the kills.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Dice;
use crate::owner::Owner;
use crate::worker::{Scene, Trouble};

pub trait Havoc {
    fn prepare(&mut self, _scene: &mut Scene) {}

    /// Called every now and then; true if everybody is to be ended and started anew.
    fn strike(&mut self, scene: &Scene, owner: &mut Owner, dice: &mut Dice, halfway: bool) -> bool;

    /// Between everybody's end and the new start.
    fn restart(&mut self, _scene: &Scene) {}

    /// Whether it has struck often enough to say something.
    fn is_enough(&self) -> bool {
        true
    }

    /// How often that was, for whoever waits for it in vain.
    fn figures(&self) -> String {
        String::new()
    }

    fn end(&mut self, _scene: &Scene) {}
}

pub struct None;

impl Havoc for None {
    fn strike(&mut self, _: &Scene, _: &mut Owner, _: &mut Dice, _: bool) -> bool {
        false
    }
}

/// A small file system that somebody fills up, and clears again.
#[derive(Default)]
pub struct FullDisk {
    times: usize,
}

const HOG: &str = "/run/small/hog";

impl Havoc for FullDisk {
    fn prepare(&mut self, scene: &mut Scene) {
        let disk = Path::new("/run/small");
        fs::create_dir(disk).unwrap();
        mount(Some("tmpfs"), disk, Some("tmpfs"), MsFlags::empty(), Some("size=8m")).unwrap();
        scene.data_dir = disk.join("ledger-dir");
        scene.trouble = Trouble::Full;
    }

    fn strike(&mut self, scene: &Scene, owner: &mut Owner, dice: &mut Dice, _: bool) -> bool {
        clear_history(scene);
        if Path::new(HOG).exists() {
            if dice.below(3) == 0 {
                fs::remove_file(HOG).unwrap();
            }
        } else if dice.below(4) == 0 {
            owner.stopped(|| self.fill(scene, owner.is_there()));
        }
        false
    }

    fn is_enough(&self) -> bool {
        self.times > 20
    }

    fn figures(&self) -> String {
        format!("it was full {} times", self.times)
    }

    fn end(&mut self, _: &Scene) {
        let _ = fs::remove_file(HOG);
    }
}

impl FullDisk {
    /// Takes all the space but what the ledger keeps: nothing helps whoever has nothing to give up. Nobody is in the
    /// middle of giving it up meanwhile.
    fn fill(&mut self, scene: &Scene, has_owner: bool) {
        let Ok(lock) = fs::File::open(scene.data_dir.join("lock")) else { return };
        if !has_owner {
            lock.lock().unwrap();
        }
        if scene.data_dir.join("ballast").exists() {
            self.times += usize::from(fs::write(HOG, vec![0; 16 << 20]).is_err());
        }
    }
}

/// The history is on that file system, too: 0.3 KiB for each operation. In a run that takes several times as many as most
/// it alone would fill it, and for good.
fn clear_history(scene: &Scene) {
    let history = scene.data_dir.join("history.jsonl");
    if fs::metadata(&history).is_ok_and(|found| found.len() > 1 << 20) {
        fs::remove_file(history).unwrap();
    }
}

/// Whoever has the lock is stopped for longer than the others wait.
#[derive(Default)]
pub struct StoppedHolder {
    times: usize,
}

impl Havoc for StoppedHolder {
    fn prepare(&mut self, scene: &mut Scene) {
        scene.lock_timeout = 1;
        scene.trouble = Trouble::Busy;
    }

    fn strike(&mut self, scene: &Scene, _: &mut Owner, dice: &mut Dice, _: bool) -> bool {
        if dice.below(40) != 0 {
            return false;
        }
        // The file names its holder while there is one: somebody will be there soon.
        let held = (0..500).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            let text = fs::read(scene.data_dir.join("lock")).unwrap_or_default();
            serde_json::from_slice::<serde_json::Value>(&text).ok()
        });
        let Some(held) = held else { return false };
        let pid = Pid::from_raw(i32::try_from(held["pid"].as_i64().unwrap()).unwrap());
        if kill(pid, Signal::SIGSTOP).is_ok() {
            // For longer than anybody waits: the test is what becomes of them.
            thread::sleep(Duration::from_millis(1300));
            kill(pid, Signal::SIGCONT).unwrap();
            self.times += 1;
        }
        false
    }

    fn is_enough(&self) -> bool {
        self.times > 3
    }

    fn figures(&self) -> String {
        format!("a holder was stopped {} times", self.times)
    }
}

/// What somebody leaves who is killed while the engine writes a snapshot.
#[derive(Default)]
pub struct Snapshots {
    times: usize,
}

impl Havoc for Snapshots {
    fn strike(&mut self, scene: &Scene, owner: &mut Owner, dice: &mut Dice, _: bool) -> bool {
        let Ok(lock) = fs::File::open(scene.data_dir.join("lock")) else { return false };
        if dice.below(16) == 0 && scene.data_dir.join("ledger").is_dir() {
            // It has the lock as long as it lives, and was the one who was writing.
            owner.kill(scene);
            lock.lock().unwrap();
            let name = format!("snap.{:016X}.generating", u64::MAX - dice.below(100));
            fs::write(scene.data_dir.join("ledger").join(name), "half a snapshot").unwrap();
            self.times += 1;
        }
        false
    }

    fn is_enough(&self) -> bool {
        self.times > 3
    }

    fn figures(&self) -> String {
        format!("{} snapshots were planted", self.times)
    }
}

/// The machine is booted: every pod is gone, and the ledger, on a disk, is still there.
#[derive(Default)]
pub struct Reboot {
    done: bool,
}

impl Havoc for Reboot {
    fn strike(&mut self, _: &Scene, _: &mut Owner, _: &mut Dice, halfway: bool) -> bool {
        halfway && !std::mem::replace(&mut self.done, halfway)
    }

    fn restart(&mut self, scene: &Scene) {
        let boot_id = scene.place.join("boot_id");
        fs::write(&boot_id, "00000000-1111-2222-3333-444444444444\n").unwrap();
        let nothing: Option<&str> = Option::None;
        mount(Some(&boot_id), "/proc/sys/kernel/random/boot_id", nothing, MsFlags::MS_BIND, nothing).unwrap();
        for folder in ["claims", "journals", "netns"] {
            fs::remove_dir_all(scene.place.join(folder)).unwrap();
            fs::create_dir(scene.place.join(folder)).unwrap();
        }
        assert!(ipam::Ledger::at(&scene.data_dir).leases("after the boot").unwrap().unwrap_or_default().is_empty());
    }

    fn is_enough(&self) -> bool {
        self.done
    }

    fn figures(&self) -> String {
        (if self.done { "booted" } else { "not booted" }).to_owned()
    }

    fn end(&mut self, scene: &Scene) {
        let text = fs::read_to_string(scene.data_dir.join("history.jsonl")).unwrap();
        assert!(text.contains("\"event\":\"voided\""), "the history says what became of the old leases");
    }
}
