//! How many packets a connection has sent, and how many of them were lost.

use std::os::fd::{AsRawFd, BorrowedFd};

/// What was sent on a connection since it began, and what of that had to go again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packets {
    /// Those that carry something, each time that they were sent.
    pub sent: u64,
    /// Those that the kernel, or QUIC, took for lost.
    pub lost: u64,
}

/// Of a socket of TCP (`TCP_INFO`); `None` where the kernel does not say.
#[allow(unsafe_code)]
pub(crate) fn of_tcp(socket: BorrowedFd<'_>) -> Option<Packets> {
    // SAFETY: it consists of integers, of which zero is one.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what there is room for, and says how many;
    // the socket is open as long as it is borrowed.
    let answer = unsafe {
        let room = (&raw mut info).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, room, &raw mut length)
    };
    // What an older kernel does not know stays zero: nothing was sent then.
    (answer == 0)
        .then(|| Packets { sent: info.tcpi_data_segs_out.into(), lost: info.tcpi_total_retrans.into() })
}
