//! A client over gRPC: a connection keeps its instance; it moves, breaks, dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::grpc::{CallError, Sdk, beside, silent, understood};
use loadtest::naming::{DEREGISTER, REGISTER, Registration};
use proto::nacos::naming::InstanceResponse;
use proto::nacos::remote::{HealthCheckRequest, HealthCheckResponse};
use tokio::time::{sleep, timeout};

use super::clients::{
    Habit, KEEPER, PATIENCE, SERVICES, Whim, World, away, beat_pause, beats, count_as_settled, service,
};
use super::record::{End, Ending, Micros, SECOND, Way, What};

/// Pause before the next node is tried.
const NEXT_PAUSE: Duration = Duration::from_millis(100);

/// The old connection is closed so long after the registration over the new one, as SDKs do it the other way
/// round within seconds: without faults the others have heard of the new one by then.
const OVERLAP: Duration = Duration::from_millis(500);

/// A registered connection.
struct Held {
    sdk: Sdk,
    node: usize,
    keeper: u32,
}

/// A client over gRPC.
pub(super) struct GrpcClient {
    world: Arc<World>,
    instance: u32,
    dice: Dice,
    at: usize,
}

impl GrpcClient {
    pub(super) fn new(world: Arc<World>, instance: u32, dice: Dice) -> Self {
        Self {
            at: instance as usize,
            world,
            instance,
            dice,
        }
    }

    pub(super) async fn run(mut self) {
        let mut counted = false;
        'away: loop {
            let mut held = self.register_somewhere().await;
            let mut beats_left = beats(&mut self.dice);
            loop {
                if self.world.is_settling() {
                    count_as_settled(&self.world, &mut counted);
                }
                sleep(beat_pause(&mut self.dice)).await;
                if !self.is_alive(&mut held).await {
                    self.end(held.keeper, Ending::Broken, self.world.log.now(), None, held.node);
                    drop(held);
                    held = self.register_somewhere().await;
                    continue;
                }
                beats_left = beats_left.saturating_sub(1);
                if beats_left > 0 || self.world.is_settling() {
                    continue;
                }
                beats_left = beats(&mut self.dice);
                match Whim::draw(&mut self.dice, Habit::Connected) {
                    Whim::Stay => continue,
                    Whim::Move => {
                        let new = self.register_somewhere().await;
                        sleep(OVERLAP).await;
                        self.end(held.keeper, Ending::Moved, self.world.log.now(), None, held.node);
                        held = new;
                        continue;
                    }
                    Whim::Deregister => self.deregister(held).await,
                    Whim::Die => {
                        self.end(held.keeper, Ending::Died, self.world.log.now(), None, held.node);
                        drop(held);
                    }
                }
                if !away(&self.world, &mut self.dice).await {
                    count_as_settled(&self.world, &mut counted);
                    return;
                }
                continue 'away;
            }
        }
    }

    /// A connection to another node, and the instance registered over it; node after node until it succeeds.
    async fn register_somewhere(&mut self) -> Held {
        let nodes = self.world.addresses.len();
        self.at = (self.at + 1 + self.dice.below(nodes)) % nodes;
        loop {
            if let Some(held) = self.register_at(self.at).await {
                return held;
            }
            sleep(NEXT_PAUSE).await;
            self.at = (self.at + 1) % nodes;
        }
    }

    async fn register_at(&mut self, node: usize) -> Option<Held> {
        let sent = self.world.log.now();
        let opened = timeout(PATIENCE, Sdk::open(beside(self.world.addresses[node]), silent())).await;
        let mut sdk = match settled(opened) {
            Ok(sdk) => sdk,
            Err(why) => {
                let wrong = Some(format!("cannot connect: {why}"));
                self.world.note(node, What::Register, Way::Grpc, sent, wrong);
                return None;
            }
        };
        let number = self.instance % SERVICES;
        let keeper = self
            .world
            .log
            .begin_life(self.instance, number, Way::Grpc, node, 30 * SECOND);
        let sent = self.world.log.now();
        match self.ask(&mut sdk, REGISTER, keeper).await {
            Ok(()) => {
                self.world.note(node, What::Register, Way::Grpc, sent, None);
                let acknowledged = Some(self.world.log.now());
                self.world
                    .log
                    .change(keeper, |life| life.acknowledged = acknowledged);
                Some(Held { sdk, node, keeper })
            }
            Err(why) => {
                // It may be carried out until the server notices that the connection is gone.
                self.world.doubt(self.instance);
                self.end(keeper, Ending::Broken, sent, None, node);
                self.world.note(node, What::Register, Way::Grpc, sent, Some(why));
                None
            }
        }
    }

    async fn is_alive(&self, held: &mut Held) -> bool {
        let sent = self.world.log.now();
        let answer = timeout(PATIENCE, held.sdk.ask(&HealthCheckRequest::default())).await;
        let checked = settled(answer).and_then(|answer| {
            understood::<HealthCheckResponse<'_>>(&answer)
                .map(|_| ())
                .map_err(|error| error.to_string())
        });
        let is_alive = checked.is_ok() && held.sdk.usable();
        self.world
            .note(held.node, What::Beat, Way::Grpc, sent, checked.err());
        is_alive
    }

    async fn deregister(&mut self, mut held: Held) {
        let asked = self.world.log.now();
        // Noted before it is sent: from then on nobody needs to list it.
        self.end(held.keeper, Ending::Deregistered, asked, None, held.node);
        let outcome = self.ask(&mut held.sdk, DEREGISTER, held.keeper).await;
        let acknowledged = outcome.is_ok().then(|| self.world.log.now());
        self.world
            .note(held.node, What::Deregister, Way::Grpc, asked, outcome.err());
        if acknowledged.is_none() {
            self.world.doubt(self.instance);
        }
        // Not acknowledged, it is a client that went away.
        let how = match acknowledged {
            Some(_) => Ending::Deregistered,
            None => Ending::Died,
        };
        self.end(held.keeper, how, asked, acknowledged, held.node);
    }

    async fn ask(&self, sdk: &mut Sdk, kind: &'static str, keeper: u32) -> Result<(), String> {
        let (name, keeper) = (service(self.instance % SERVICES), keeper.to_string());
        let registration = Registration {
            service: &name,
            instance: self.instance,
            metadata: "",
        };
        let request = registration.message(kind, &[(KEEPER, &keeper)]);
        let answer = settled(timeout(PATIENCE, sdk.ask(&request)).await)?;
        understood::<InstanceResponse<'_>>(&answer)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn end(&self, keeper: u32, how: Ending, asked: Micros, acknowledged: Option<Micros>, node: usize) {
        self.world.log.change(keeper, |life| {
            life.end = Some(End {
                how,
                asked,
                acknowledged,
                node,
            });
        });
    }
}

fn settled<T>(outcome: Result<Result<T, CallError>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match outcome {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
