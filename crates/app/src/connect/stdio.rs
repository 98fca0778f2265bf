//! A service joined to the standard input and output, as ssh's `ProxyCommand` wants it.
//!
//! Both may be pipes, files or terminals, which no poller watches: each has a thread of its own, which passes
//! pieces on and is waited for where they are many.

use std::io::{self, Read, Write};

use tieline_transport::Io;
use tieline_tunnel::{ConnectError, UserLink};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::opened;

/// The longest piece, in bytes.
const PIECE: usize = 32 * 1024;

/// Pieces on their way between a thread and the link.
const PIECES: usize = 4;

/// Joins `service`, which is wanted for `why`, to the standard input and output, until it has said all it has
/// to say.
pub(super) async fn join(link: &UserLink, service: &str, why: &str) -> Result<(), ConnectError> {
    let far = opened(link, service, why).await?;
    let (reader, writer) = tokio::io::split(far);
    let joined = async {
        let (up, down) = (send(writer), receive(reader));
        tokio::pin!(up, down);
        // Both arms may be dropped: the process ends then.
        tokio::select! {
            done = &mut down => return done,
            sent = &mut up => sent?,
        }
        down.await
    };
    joined.await.map_err(|error: io::Error| link.error(&error))
}

async fn send(mut far: WriteHalf<Io>) -> io::Result<()> {
    let (pieces, mut read) = mpsc::channel::<io::Result<Vec<u8>>>(PIECES);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut piece = vec![0; PIECE];
            let read = match stdin.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(piece)
                }
                Err(error) => Err(error),
            };
            let over = read.is_err();
            if pieces.blocking_send(read).is_err() || over {
                return;
            }
        }
    });
    while let Some(piece) = read.recv().await {
        far.write_all(&piece?).await?;
    }
    far.shutdown().await
}

async fn receive(mut far: ReadHalf<Io>) -> io::Result<()> {
    let (pieces, mut written) = mpsc::channel::<Vec<u8>>(PIECES);
    let (told, done) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = io::stdout().lock();
        let mut write = || {
            while let Some(piece) = written.blocking_recv() {
                stdout.write_all(&piece)?;
                stdout.flush()?;
            }
            Ok(())
        };
        let result: io::Result<()> = write();
        // Nobody else will take what comes.
        drop(written);
        let _ = told.send(result);
    });
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let length = far.read_buf(&mut piece).await?;
        if length == 0 || pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    done.await.unwrap_or(Ok(()))
}
