//! Redis Cluster: links to each master, a map of the slots, and redirections.
//!
//! Calls to slots of one master are put into one, where the nodes let a script use keys of several slots (which is looked up
//! when a map is read). Such a call is refused as a whole when one of its keys is, or moves, elsewhere; the pipeline then sends
//! its parts by themselves, and these follow redirections.
//!
//! fred has a cluster client of its own; this is used instead because there a master that is away stops the calls to
//! all others until the cluster has failed over, and ASK leads back to where it came from (fred 10.1). Here each node
//! fails by itself.

mod map;

pub(super) use self::map::slot_of;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::interfaces::LuaInterface;
use fred::prelude::{Client, ClientLike};
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Key, Value};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::map::{SlotMap, redirection};
use super::budget::Budget;
use super::call::{self, Failure, Mode};
use super::client::Tls;
use super::events::{LinkWatch, RedisObserver};
use super::link::Links;
use super::script::CallTime;
use super::sentinel::Master;
use crate::algorithms::op::Op;
use crate::config::settings::redis::HostPort;
use crate::config::settings::{RedisSettings, Topology};
use crate::model::Transaction;
use crate::store::remote::transport::Delivery;
use crate::store::{Refusal, StoreError};

/// Times that a call follows MOVED or ASK.
const MAX_REDIRECTIONS: usize = 3;
/// The map is read anew this often, whatever happens …
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// … and when a call shows that it is out of date, or a node is away, not more often than this.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);
/// Uses two keys that are not declared.
const CROSSES_SLOTS: &str = "redis.call('GET', ARGV[1]) redis.call('GET', ARGV[2]) return 1";
/// Between two looks for the first node that answers.
const SEARCH_PAUSE: Duration = Duration::from_millis(20);

/// See the module's docs.
pub(super) struct Cluster {
    settings: Arc<RedisSettings>,
    seeds: Vec<HostPort>,
    call_timeout: Duration,
    observer: RedisObserver,
    tls: Tls,
    stop: CancellationToken,
    map: ArcSwap<SlotRoutes>,
    /// Nodes that are in use, or were named by a redirection since the last refresh.
    nodes: Mutex<HashMap<HostPort, Arc<Links>>>,
    outdated: Notify,
}

/// A map with the links of its nodes.
struct SlotRoutes {
    slots: SlotMap,
    links: HashMap<HostPort, Arc<Links>>,
    /// Whether a script may use keys of several slots of its node, once a node has been asked.
    crosses_slots: Option<bool>,
}

impl Cluster {
    /// Starts to look for the cluster.
    pub fn spawn(
        settings: &Arc<RedisSettings>,
        seeds: &[HostPort],
        call_timeout: Duration,
        observer: RedisObserver,
        tls: Tls,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let cluster = Arc::new(Self {
            settings: settings.clone(),
            seeds: seeds.to_vec(),
            call_timeout,
            observer,
            tls,
            stop: stop.clone(),
            map: ArcSwap::from_pointee(SlotRoutes {
                slots: SlotMap::empty(),
                links: HashMap::new(),
                crosses_slots: None,
            }),
            nodes: Mutex::default(),
            outdated: Notify::new(),
        });
        let refresher = cluster.clone();
        tokio::spawn(async move { stop.run_until_cancelled(refresher.keep_up_to_date()).await });
        cluster
    }

    /// Connections that are up, and how many there should be.
    pub fn connections(&self) -> (usize, usize) {
        let routes = self.map.load();
        let wanted = self.settings.pool_size.max(1) * routes.links.len().max(1);
        (routes.links.values().map(|links| links.up()).sum(), wanted)
    }

    /// A number that slots have in common if one call may have keys of all of them.
    pub fn lane(&self, slot: u16) -> u16 {
        let routes = self.map.load();
        if routes.crosses_slots == Some(true) {
            routes.slots.owner_number(slot)
        } else {
            slot
        }
    }

    /// A connection to the master of a slot.
    pub fn client(&self, slot: u16) -> Result<Arc<Client>, StoreError> {
        let routes = self.map.load();
        let links = routes.slots.owner(slot).and_then(|node| routes.links.get(node));
        links.ok_or_else(|| self.nobody(&routes))?.next()?.client()
    }

    /// A connection to the master of this number, and how many masters there are.
    pub fn master(&self, number: usize) -> Result<(Arc<Client>, usize), StoreError> {
        let routes = self.map.load();
        let links = routes.slots.nodes.get(number).and_then(|node| routes.links.get(node));
        let client = links.ok_or_else(|| self.nobody(&routes))?.next()?.client()?;
        Ok((client, routes.slots.nodes.len()))
    }

    /// Why there is no node to ask; asks for a newer map.
    fn nobody(&self, routes: &SlotRoutes) -> StoreError {
        self.outdated.notify_one();
        let text = if routes.links.is_empty() {
            "no node of the cluster has been found yet"
        } else {
            "no node of the cluster serves this slot"
        };
        StoreError::Unavailable(text.to_owned())
    }

    /// Sends transactions to the master of this slot, in whose lane all of their counters are. Redirections are followed if all
    /// are in the slot itself.
    pub async fn send(&self, slot: u16, transactions: &[Transaction<Op>], budget: &Budget, time: CallTime) -> Delivery {
        let routes = self.map.load_full();
        let Some(mut node) = routes.slots.owner(slot).cloned() else {
            return Delivery::NotSent(self.nobody(&routes));
        };
        let checks = transactions.iter().flat_map(|transaction| &transaction.checks);
        let is_one_slot = checks.map(|check| slot_of(&check.key)).all(|other| other == slot);
        let mut mode = if is_one_slot { Mode::Plain } else { Mode::Undeclared };
        for _ in 0..=MAX_REDIRECTIONS {
            let links = match routes.links.get(&node) {
                Some(links) => links.clone(),
                None => self.links(&node),
            };
            let sent = match links.next() {
                Ok(link) => call::decide(link, transactions, budget, time, mode).await,
                Err(error) => Err(Failure::NotSent(error)),
            };
            match sent {
                Ok(answers) => return Delivery::Answered(Ok(answers)),
                Err(Failure::Redirected(details)) => {
                    mode = if details.starts_with("ASK") {
                        Mode::Asking
                    } else {
                        self.outdated.notify_one();
                        Mode::Plain
                    };
                    match redirection(&details, &node) {
                        Some(to) => node = to,
                        None => return Delivery::Answered(Err(StoreError::refused(&details))),
                    }
                }
                Err(failure) => {
                    if let Failure::NotSent(error) | Failure::Sent(error) = &failure
                        && speaks_of_a_change(error)
                    {
                        self.outdated.notify_one();
                    }
                    return failure.into();
                }
            }
        }
        Delivery::Answered(Err(StoreError::refused("MOVED too often")))
    }

    /// The links of a node; makes them if they are new.
    fn links(&self, node: &HostPort) -> Arc<Links> {
        let mut nodes = self.nodes.lock();
        let make = || {
            let settings = RedisSettings {
                topology: Topology::Single(node.clone()),
                ..(*self.settings).clone()
            };
            let watch = LinkWatch::new(&settings.to_string(), self.observer.clone());
            let (timeout, master) = (self.call_timeout, Master::fixed());
            Arc::new(Links::spawn(settings, timeout, &master, &watch, &self.tls, &self.stop))
        };
        nodes.entry(node.clone()).or_insert_with(make).clone()
    }

    async fn keep_up_to_date(&self) {
        // Somebody else each time: nobody's outdated view is asked for for ever.
        for asked in 0_usize.. {
            if let Some(slots) = self.read_map(asked).await {
                let crosses_slots = match self.map.load().crosses_slots {
                    None => self.crosses_slots(&slots).await,
                    known => known,
                };
                self.adopt(slots, crosses_slots);
            }
            if self.map.load().links.is_empty() {
                sleep(SEARCH_PAUSE).await;
                continue;
            }
            sleep(REFRESH_PAUSE).await;
            let (up, wanted) = self.connections();
            if up == wanted && self.map.load().crosses_slots.is_some() {
                // Nothing to do until a call says so, or time has passed.
                let _ = timeout(REFRESH_EVERY, self.outdated.notified()).await;
            }
        }
    }

    /// Asks nodes in turn, those that we know before those that we were told of at the start.
    async fn read_map(&self, asked: usize) -> Option<SlotMap> {
        let known: Vec<HostPort> = self.map.load().slots.nodes.clone();
        let all: Vec<&HostPort> = known.iter().chain(&self.seeds).collect();
        for n in 0..all.len() {
            let node = *all.get((asked + n) % all.len())?;
            let Ok(client) = self.links(node).next().and_then(|link| link.client()) else {
                continue;
            };
            if let Ok(slots) = cluster_slots(&client, self.settings.connect_timeout, node).await {
                return Some(slots);
            }
        }
        None
    }

    /// Whether a script may use keys of several slots of its node: asks the first master that has an answer. Redis and Valkey
    /// allow it, a proxy in front of them may not.
    async fn crosses_slots(&self, slots: &SlotMap) -> Option<bool> {
        for node in &slots.nodes {
            let (Ok(client), Some(keys)) = (
                self.links(node).next().and_then(|link| link.client()),
                slots.keys_of_two_slots(node, &self.settings.key_prefix),
            ) else {
                continue;
            };
            let options = Options {
                timeout: Some(self.settings.connect_timeout),
                ..Options::default()
            };
            let client = client.with_options(&options);
            let answer: Result<i64, _> = client.eval(CROSSES_SLOTS, Vec::<Key>::new(), keys.to_vec()).await;
            let Err(error) = answer else { return Some(true) };
            let error = super::client::store_error(&error, self.settings.connect_timeout);
            if error.is_cross_slot() || !speaks_of_a_change(&error) {
                tracing::info!(%error, "scripts that use several slots of a node are refused: each slot is asked by itself");
                return Some(false);
            }
        }
        None
    }

    /// Takes a map into use; nodes that are not in it lose their links.
    fn adopt(&self, slots: SlotMap, crosses_slots: Option<bool>) {
        let links: HashMap<HostPort, Arc<Links>> = slots
            .nodes
            .iter()
            .map(|node| (node.clone(), self.links(node)))
            .collect();
        if slots.nodes.is_empty() {
            return;
        }
        self.nodes.lock().retain(|node, _| links.contains_key(node));
        self.map.store(Arc::new(SlotRoutes {
            slots,
            links,
            crosses_slots,
        }));
    }
}

async fn cluster_slots(client: &Client, patience: Duration, node: &HostPort) -> Result<SlotMap, StoreError> {
    let command = CustomCommand::new_static("CLUSTER SLOTS", ClusterHash::Random, false);
    let options = Options {
        timeout: Some(patience),
        ..Options::default()
    };
    let reply: Result<Value, _> = client.with_options(&options).custom(command, Vec::<Value>::new()).await;
    let reply = reply.map_err(|error| super::client::store_error(&error, patience))?;
    SlotMap::parse(&reply, node)
}

/// Whether an error suggests that another node serves the slot now.
fn speaks_of_a_change(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_) | StoreError::Broken(_) | StoreError::Timeout(_) => true,
        StoreError::Refused { kind, .. } => matches!(
            kind,
            Refusal::ReadOnly | Refusal::ClusterDown | Refusal::MasterDown | Refusal::Loading | Refusal::CrossSlot
        ),
        StoreError::NotSent(why) => speaks_of_a_change(why),
        StoreError::Overloaded | StoreError::Protocol(_) => false,
    }
}
