//! A disk that fills and loses power, for tests that may not mount one: a library that is preloaded into a process.
//!
//! | variable | what it does |
//! |---|---|
//! | `DISK_FOLDER` | the folder that stands for the disk |
//! | `DISK_FULL` | while this file exists, no file below the folder grows: ENOSPC |
//! | `DISK_SYNCED` | a folder of what would be there after a power cut: each file as it was when it was last synced, and no file whose folder was not synced since the file was made |
//!
//! Whoever reads `DISK_SYNCED` sees the worst that a power cut may leave, short of a disk that lies.

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_void},
    fs,
    path::{Path, PathBuf},
};

/// Numbers of the system's calls.
#[cfg(target_arch = "x86_64")]
const NUMBERS: [c_long; 4] = [1, 18, 74, 75];
#[cfg(target_arch = "aarch64")]
const NUMBERS: [c_long; 4] = [64, 68, 82, 83];
const WRITE: c_long = NUMBERS[0];
const PWRITE: c_long = NUMBERS[1];
const FSYNC: c_long = NUMBERS[2];
const FDATASYNC: c_long = NUMBERS[3];

const ENOSPC: c_int = 28;
/// Behind the name of a file that was synced, and its folder not yet.
const UNLISTED: &str = ".unlisted";

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn getenv(name: *const c_char) -> *const c_char;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize;
    fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    fn __errno_location() -> *mut c_int;
}

fn variable(name: &CStr) -> Option<&'static CStr> {
    let value = unsafe { getenv(name.as_ptr()) };
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// Calls `then` with the name of the file behind `fd`, when that is below the folder. Takes no memory: `write` is also called where
/// there is none to take.
fn below<T>(fd: c_int, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let folder = variable(c"DISK_FOLDER")?.to_bytes();
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let (mut rest, mut digits) = (u32::try_from(fd).ok()?, 1);
    while rest >= 10u32.pow(digits) && digits < 9 {
        digits += 1;
    }
    for at in (0..digits as usize).rev() {
        path[14 + at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut name = [0u8; 4096];
    let size = unsafe { readlink(path.as_ptr().cast(), name.as_mut_ptr().cast(), name.len()) };
    let name = &name[..usize::try_from(size).ok()?];
    name.starts_with(folder).then(|| then(&name[folder.len()..]))
}

/// Whether a write that ends at `end` (none: at the position that the file has, and `size` further) finds no room.
fn no_room(fd: c_int, size: usize, offset: Option<i64>) -> bool {
    let Some(sign) = variable(c"DISK_FULL") else { return false };
    if unsafe { access(sign.as_ptr(), 0) } != 0 || below(fd, |_| ()).is_none() {
        return false;
    }
    let at = unsafe { lseek(fd, 0, 1) };
    let long = unsafe { lseek(fd, 0, 2) };
    if at < 0 {
        return false;
    }
    unsafe { lseek(fd, at, 0) };
    offset.unwrap_or(at) + size as i64 > long
}

fn refuse() -> isize {
    unsafe { *__errno_location() = ENOSPC };
    -1
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, data: *const c_void, size: usize) -> isize {
    if no_room(fd, size, None) { refuse() } else { (unsafe { syscall(WRITE, fd, data, size) }) as isize }
}

#[unsafe(no_mangle)]
extern "C" fn pwrite(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize {
    if no_room(fd, size, Some(offset)) {
        return refuse();
    }
    (unsafe { syscall(PWRITE, fd, data, size, offset) }) as isize
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize {
    pwrite(fd, data, size, offset)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, unsafe { syscall(FSYNC, fd) })
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, unsafe { syscall(FDATASYNC, fd) })
}

fn synced(fd: c_int, result: c_long) -> c_int {
    if result == 0
        && let Some(to) = variable(c"DISK_SYNCED")
    {
        let name = below(fd, |name| PathBuf::from(String::from_utf8_lossy(name).trim_start_matches('/')));
        if let Some(name) = name {
            keep(&name, Path::new(&*to.to_string_lossy()));
        }
    }
    result as c_int
}

/// What is on the disk for certain now. A copy that fails shows in the test: then something is missing.
fn keep(name: &Path, to: &Path) {
    let Some(folder) = variable(c"DISK_FOLDER") else { return };
    let folder = PathBuf::from(&*folder.to_string_lossy());
    let from = folder.join(name);
    if !from.is_dir() {
        let there = to.join(name);
        let listed = there.exists();
        let mut draft = there.clone().into_os_string();
        draft.push(UNLISTED);
        if fs::copy(&from, &draft).is_ok() && listed {
            let _ = fs::rename(&draft, &there);
        }
        return;
    }
    let there = to.join(name);
    for entry in fs::read_dir(&there).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(listed) = path.to_str().and_then(|path| path.strip_suffix(UNLISTED)) else {
            // What was taken away is gone now for certain.
            let gone = path.file_name().is_some_and(|file| !from.join(file).exists());
            let _ = if gone { fs::remove_file(&path) } else { Ok(()) };
            continue;
        };
        let is_there = Path::new(listed).file_name().is_some_and(|file| from.join(file).exists());
        let _ = if is_there { fs::rename(&path, listed) } else { fs::remove_file(&path) };
    }
}
