//! Noticing that files changed, by looking at their stamps.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often the stamps are read. A change counts once they have stayed the same for this long, so that a file is not read
/// half written.
const INTERVAL: Duration = Duration::from_millis(250);

/// What tells one state of a file from another: device, inode, length, and time of change in seconds and nanoseconds.
/// `None` for a file that is not there.
type Stamp = Option<[i64; 5]>;

/// Files that are looked after.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    /// As they were when last reported.
    known: Vec<Stamp>,
    /// As they were when last looked at.
    seen: Vec<Stamp>,
    looked: Instant,
}

impl Watch {
    /// Looks after `files` as they are now.
    pub fn new(files: &[PathBuf]) -> Watch {
        let known = stamps(files);
        Watch { files: files.to_vec(), seen: known.clone(), known, looked: Instant::now() }
    }

    /// Looks after `files` instead. A file that was looked after already keeps its state: a change meanwhile is not missed.
    pub fn follow(&mut self, files: &[PathBuf]) {
        if self.files != files {
            *self = Watch::new(files);
        }
    }

    /// Whether there was a change since the last one that was reported, and it is over.
    pub fn changed(&mut self) -> bool {
        if self.looked.elapsed() < INTERVAL {
            return false;
        }
        self.looked = Instant::now();
        let now = stamps(&self.files);
        let settled = now == self.seen;
        self.seen = now;
        let changed = settled && self.seen != self.known;
        if changed {
            self.known = self.seen.clone();
        }
        changed
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let data = fs::metadata(file).ok()?;
        Some([data.dev() as i64, data.ino() as i64, data.len() as i64, data.mtime(), data.mtime_nsec()])
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_is_over() {
        let file = std::env::temp_dir().join(format!("tollgate-watch-{}", std::process::id()));
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&file));
        let mut told = || {
            thread::sleep(INTERVAL + Duration::from_millis(20));
            watch.changed()
        };
        assert!(!told());
        fs::write(&file, "ab").unwrap();
        assert!(!told(), "it may still be written to");
        assert!(told());
        assert!(!told());
        fs::remove_file(&file).unwrap();
        assert!(!told());
        assert!(told());
    }
}
