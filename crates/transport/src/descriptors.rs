//! File descriptors: how many this process may own, and what running out of them looks like.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The process's limit of open files before and after it was raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileLimit {
    /// What we were started with.
    pub before: u64,
    /// What holds now.
    pub now: u64,
}

/// What is asked for where the kernel lets us go beyond the hard limit: two descriptors for each of 500,000
/// connections. `fs.nr_open` is 1,048,576 where nobody changed it.
const WANTED: u64 = 1_048_576;

/// Raises the soft limit of open files as far as it may go: beyond the hard one with `CAP_SYS_RESOURCE`, else
/// to it.
pub fn raise_file_limit() -> FileLimit {
    let limit = getrlimit(Resource::Nofile);
    let (before, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    for wanted in [WANTED.max(hard), hard] {
        let new = Rlimit { current: Some(wanted), maximum: Some(wanted.max(hard)) };
        if wanted <= before || setrlimit(Resource::Nofile, new).is_ok() {
            return FileLimit { before, now: wanted.max(before) };
        }
    }
    FileLimit { before, now: before }
}

/// Whether `error` says that this machine ran out of something (descriptors, buffers, memory, local ports),
/// as opposed to the peer being at fault.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let spent = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| spent.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::{is_exhaustion, raise_file_limit};
    use std::io;

    #[test]
    fn the_limit_only_rises() {
        let limit = raise_file_limit();
        assert!(limit.now >= limit.before);
        assert_eq!(raise_file_limit().now, limit.now);
    }

    #[test]
    fn a_refusal_is_not_exhaustion() {
        assert!(is_exhaustion(&io::Error::from(rustix::io::Errno::MFILE)));
        assert!(!is_exhaustion(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    }
}
