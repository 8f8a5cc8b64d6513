//! What a fault is done to: Redis in one of its shapes, and replicas over it.

use tokio::task::block_in_place;

use crate::load::RULES;
use crate::proxy::Proxy;
use crate::support::clock::SteppedClock;
use crate::support::process::free_port;
use crate::support::redis::Redis;
use crate::support::redis::cluster::Cluster;
use crate::support::redis::sentinel::Sentinel;
use crate::support::sluicegate::Sluicegate;

/// Replicas of the service.
pub const REPLICAS: usize = 2;

/// How Redis is run.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// One server with these arguments, behind the proxy.
    Single(&'static [&'static str]),
    /// The same, but it does not run yet.
    Absent,
    /// The same, and the replicas' log takes nothing.
    FullLog,
    /// The same, and the first replica's clock can be stepped.
    Clock,
    /// A master, a replica and three sentinels.
    Sentinel,
    /// Three masters, with a replica each.
    Cluster,
}

impl Shape {
    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single(_) | Self::Absent | Self::FullLog | Self::Clock => "single",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
        }
    }
}

/// See the module's docs.
pub struct Scene {
    pub redis: Option<Redis>,
    pub redis_port: u16,
    pub proxy: Option<Proxy>,
    pub sentinel: Option<Sentinel>,
    pub cluster: Option<Cluster>,
    pub replicas: Vec<Sluicegate>,
    /// Of the first replica.
    pub clock: Option<SteppedClock>,
}

impl Scene {
    /// Starts everything.
    pub async fn start(shape: Shape) -> Self {
        let mut scene = Self {
            redis: None,
            redis_port: free_port(),
            proxy: None,
            sentinel: None,
            cluster: None,
            replicas: Vec::new(),
            clock: matches!(shape, Shape::Clock).then(SteppedClock::new),
        };
        match shape {
            Shape::Single(arguments) => {
                scene.redis = Some(block_in_place(|| Redis::start_on(scene.redis_port, arguments)))
            }
            Shape::FullLog | Shape::Clock => {
                scene.redis = Some(block_in_place(|| Redis::start_on(scene.redis_port, &[])))
            }
            Shape::Absent => {}
            Shape::Sentinel => scene.sentinel = Some(block_in_place(Sentinel::start)),
            Shape::Cluster => scene.cluster = Some(block_in_place(|| Cluster::start(3, true))),
        }
        let url = match (&scene.sentinel, &scene.cluster) {
            (Some(sentinel), _) => sentinel.url(),
            (_, Some(cluster)) => cluster.url(),
            _ => {
                let proxy = Proxy::start(scene.redis_port).await;
                let url = format!("redis://127.0.0.1:{}", proxy.port);
                scene.proxy = Some(proxy);
                url
            }
        };
        let replicas = REPLICAS.to_string();
        let arguments = ["--redis-url", &url, "--replicas", &replicas, "--drain-delay", "300ms"];
        let start = |n| match (shape, &scene.clock) {
            (_, Some(clock)) if n == 0 => Sluicegate::start_under(clock, RULES, &arguments),
            (Shape::FullLog, _) => Sluicegate::start_with_full_log(RULES, &arguments),
            _ => Sluicegate::start(RULES, &arguments),
        };
        scene.replicas = block_in_place(|| (0..REPLICAS).map(start).collect());
        scene
    }

    /// The one server.
    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a single Redis")
    }

    /// Runs a command on the one server, and wants this answer.
    pub fn command(&mut self, arguments: &[&str]) {
        let answer = self.redis().cli(arguments);
        assert!(answer.starts_with("OK"), "{arguments:?}: {answer}");
    }

    /// The network in front of it.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a proxy")
    }
}
