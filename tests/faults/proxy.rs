//! A TCP proxy whose network we control: it delays, falls silent, or cuts.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What the network does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Passes everything on.
    Whole,
    /// Passes everything on, towards the client by so much later.
    Slow(Duration),
    /// Connections stay open and nothing passes.
    Silent,
    /// Connections are closed, new ones too.
    Cut,
}

/// Chunks under way in one direction of one connection, at most.
const UNDER_WAY: usize = 4096;
const CHUNK: usize = 16 * 1024;

/// A running proxy; it ends when dropped.
pub struct Proxy {
    /// Its port on loopback.
    pub port: u16,
    network: watch::Sender<Network>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of `upstream` on loopback.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let network = watch::Sender::new(Network::Whole);
        let state = network.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, upstream, state.clone()));
            }
        });
        Self { port, network, task }
    }

    /// Changes the network from now on.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: TcpStream, upstream: u16, network: watch::Receiver<Network>) {
    let mut cut = network.clone();
    let pass = async {
        let server = TcpStream::connect(("127.0.0.1", upstream)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            result = pump(from_client, to_server, network.clone(), false) => result,
            result = pump(from_server, to_client, network, true) => result,
        }
    };
    // Either way the connection ends here; which way does not matter.
    tokio::select! {
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
        _ = pass => {}
    }
}

/// Passes bytes on in order; each chunk waits on its own, so that a slow network has the throughput of a fast one.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
    delays: bool,
) -> std::io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let state = network.clone();
    let read = async move {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            let delay = match *state.borrow() {
                Network::Slow(delay) if delays => delay,
                _ => Duration::ZERO,
            };
            if length == 0
                || sender
                    .send((Instant::now() + delay, chunk[..length].to_vec()))
                    .await
                    .is_err()
            {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            if network.wait_for(|network| *network != Network::Silent).await.is_err() {
                return Ok(());
            }
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|((), ())| ())
}
