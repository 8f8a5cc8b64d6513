//! An upstream that counts what is in flight, and holds requests until it is told to let them go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing::get};
use tokio::{net::TcpListener, sync::Notify, time::sleep};

/// A running upstream; it ends with the test's runtime. `/hold` answers when told to, everything else after a moment.
pub struct Upstream {
    /// Where it listens on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    in_flight: AtomicUsize,
    most: AtomicUsize,
    opened: Notify,
}

/// A request in flight, also one whose client leaves.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        let now = shared.in_flight.fetch_add(1, SeqCst) + 1;
        shared.most.fetch_max(now, SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Upstream {
    /// Starts one.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/hold", get(hold))
            .fallback(short)
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, shared }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    /// The most that ever were at the same time.
    pub fn most(&self) -> usize {
        self.shared.most.load(SeqCst)
    }

    /// Answers all requests that are held.
    pub fn let_go(&self) {
        self.shared.opened.notify_waiters();
    }
}

async fn hold(State(shared): State<Arc<Shared>>) {
    // Listens before it is counted: whoever has seen it can let it go.
    let mut opened = std::pin::pin!(shared.opened.notified());
    opened.as_mut().enable();
    let _in_flight = InFlight::new(&shared);
    opened.await;
}

async fn short(State(shared): State<Arc<Shared>>) {
    let _in_flight = InFlight::new(&shared);
    sleep(Duration::from_millis(rand::random_range(0..20))).await;
}
