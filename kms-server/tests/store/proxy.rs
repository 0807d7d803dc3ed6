//! A relay in front of PostgreSQL that loses the commit, or only its answer.

use crate::postgres::{Server, socket, url};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What the relay does with the next commit.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// The server never sees it.
    BeforeCommit,
    /// The server does it, the client never hears of it.
    AfterCommit,
    /// From here on nobody hears anything, and the connection stays: a host that lost its power.
    Silence,
}

/// A relay that runs until it is dropped.
pub struct Proxy {
    directory: TempDir,
    cut: Arc<Mutex<Option<Cut>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub fn start(server: &Server) -> Self {
        let directory = TempDir::new().expect("a temporary folder can be made");
        let listener = UnixListener::bind(socket(directory.path())).expect("the socket can be made");
        let cut = Arc::new(Mutex::new(None));
        let task = tokio::spawn(accept(listener, server.socket(), cut.clone()));
        Self { directory, cut, task }
    }

    /// The URL of a database by way of the relay.
    pub fn url(&self, name: &str) -> String {
        url(name, self.directory.path())
    }

    /// Arms the relay for one commit.
    pub fn cut_next_commit(&self, cut: Cut) {
        *self.cut.lock().expect("nobody panics with the lock") = Some(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, server: PathBuf, cut: Arc<Mutex<Option<Cut>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&server).await.expect("the server listens");
        let cut = cut.clone();
        tokio::spawn(async move {
            // The ends of a connection are errors here; the client and the server see them for themselves.
            let _ = relay(client, server, &cut).await;
        });
    }
}

async fn relay(
    mut client: UnixStream,
    mut server: UnixStream,
    cut: &Mutex<Option<Cut>>,
) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            len = client.read(&mut asked) => {
                let question = &asked[..len?];
                if question.is_empty() {
                    return Ok(());
                }
                let is_commit = question.windows(7).any(|window| window == b"COMMIT\0");
                let cut_now = if is_commit { cut.lock().expect("nobody panics with the lock").take() } else { None };
                match cut_now {
                    None => server.write_all(question).await?,
                    Some(Cut::BeforeCommit) => return Ok(()),
                    Some(Cut::Silence) => std::future::pending().await,
                    Some(Cut::AfterCommit) => {
                        server.write_all(question).await?;
                        let answer_len = server.read(&mut answered).await?;
                        assert_ne!(answer_len, 0, "the server has committed");
                        return Ok(());
                    }
                }
            }
            len = server.read(&mut answered) => {
                let answer = &answered[..len?];
                if answer.is_empty() {
                    return Ok(());
                }
                client.write_all(answer).await?;
            }
        }
    }
}
