//! The loop of one connection of the gRPC port: bare HTTP/2, paths dispatched to the peer door or to
//! whoever serves clients.
//!
//! It is one hand-written future and polls what has to be looked at in a fixed order. The obvious form, a
//! `select!` over a stop signal, the door's opinion, a timer and `accept`, takes the lock of each of them
//! again for every request; here a turn without news costs one atomic load.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};
use tracing::debug;

use super::line::{Line, Order, Wire};
use super::listener::{Guest, STOPPING, Server, TLS_ONLY, TOO_MANY, refuse};
use crate::clock;
use crate::cluster::{Exchange, Standing, Visit, WINDOW_BYTES as PEER_WINDOW_BYTES};

/// A connection in the hands of h2.
pub(super) type Http = h2::server::Connection<Wire, Bytes>;

/// Requests taken in one turn; other tasks of the thread get theirs then.
const REQUESTS_PER_TURN: usize = 64;
/// Between [`Line::hang_up`] and the cut.
const HANG_UP_WITHIN: Duration = Duration::from_secs(1);

/// Completes when the connection is done with; dropping it cuts the connection.
pub(super) struct Session {
    server: Arc<Server>,
    line: Arc<Line>,
    http: Http,
    /// With which the line wakes this loop.
    waker: Option<Waker>,
    /// Requests that are worked on: the work holds a clone of this. A semaphore would do as well, and
    /// take a lock twice for each request.
    tasks: Arc<()>,
    /// A place of the reserve, or of a server whose clients are to go: a peer, or nobody.
    reserved: bool,
    /// In clear text where clients have to use TLS: a peer, or nobody.
    pub(super) kept_out: bool,
    /// It has asked for something.
    has_asked: bool,
    draining: bool,
    /// When it is closed unless something happens before.
    deadline: Option<Pin<Box<Sleep>>>,
    visit: Option<Arc<Visit>>,
    standing: Option<watch::Receiver<Standing>>,
    is_peer: bool,
    guest: Option<Arc<dyn Guest>>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, line: Arc<Line>, http: Http, reserved: bool) -> Session {
        let visit = server.door.as_ref().map(|door| door.open(line.remote));
        let mut session = Session {
            server,
            line,
            http,
            waker: None,
            tasks: Arc::new(()),
            reserved,
            kept_out: false,
            has_asked: false,
            draining: false,
            deadline: None,
            visit,
            standing: None,
            is_peer: false,
            guest: None,
        };
        session.close_in(if reserved {
            session.server.limits.proof_within
        } else {
            session.server.limits.first_request_within
        });
        session
    }

    fn close_in(&mut self, within: Duration) {
        self.deadline = Some(Box::pin(sleep_until(clock::now() + within)));
    }

    /// Carries out what was ordered from elsewhere.
    fn obey(&mut self, cx: &Context<'_>) {
        if self
            .waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            self.line.listen(cx.waker());
            self.waker = Some(cx.waker().clone());
        }
        let orders = self.line.take_orders();
        if orders.has(Order::LookAtStanding) {
            self.look_at_standing();
        }
        if orders.has(Order::AllGo) {
            self.drain(self.server.limits.drain_within);
        }
        if orders.has(Order::ClientsGo) && !self.is_peer {
            self.reserved = true;
            if self.guest.is_some() {
                self.drain(self.server.limits.drain_within);
            } else if self.deadline.is_none() {
                self.close_in(self.server.limits.proof_within);
            }
        }
        if orders.has(Order::HangUp) {
            self.draining = false;
            self.drain(HANG_UP_WITHIN);
        }
    }

    /// No new streams; those that are open may finish.
    fn drain(&mut self, within: Duration) {
        if !self.draining {
            self.draining = true;
            self.close_in(within);
            self.http.graceful_shutdown();
            if let Some(guest) = &self.guest {
                guest.leave();
            }
        }
    }

    fn look_at_standing(&mut self) {
        let Some(standing) = &mut self.standing else {
            return;
        };
        let standing = standing.borrow_and_update().clone();
        match standing {
            Standing::Stranger => {}
            Standing::Proven(_) if self.is_peer => {}
            Standing::Proven(_) => {
                self.is_peer = true;
                self.server.metrics.peers.fetch_add(1, Ordering::Relaxed);
                self.reserved = false;
                if !self.draining {
                    self.deadline = None;
                }
                self.http.set_target_window_size(PEER_WINDOW_BYTES);
                if let Err(error) = self.http.set_initial_window_size(PEER_WINDOW_BYTES) {
                    debug!("the window of a peer stays small: {error}");
                }
            }
            Standing::Failed => self.drain(self.server.limits.drain_within),
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_>, exchange: Exchange) {
        if !self.has_asked {
            self.has_asked = true;
            if !self.reserved && !self.draining {
                self.close_in(self.server.limits.registered_within);
            }
        }
        if Arc::strong_count(&self.tasks) > self.server.limits.streams_max as usize {
            self.server.metrics.overrun.fetch_add(1, Ordering::Relaxed);
            let (_, mut respond) = exchange;
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return;
        }
        let routed = match &self.visit {
            Some(visit) => visit.route(exchange),
            None => Err(Box::new(exchange)),
        };
        let tasks = self.tasks.clone();
        match routed {
            Ok(work) => {
                self.follow_standing();
                drop(self.server.network.spawn(async move {
                    work.await;
                    drop(tasks);
                }));
            }
            Err(exchange) if self.reserved => {
                let is_stopping = self.server.clients.has_begun();
                refuse(exchange.1, if is_stopping { STOPPING } else { TOO_MANY });
            }
            Err(exchange) if self.kept_out && !self.is_peer => {
                refuse(exchange.1, TLS_ONLY);
                let why = "clients have to use TLS here (RNACOS_GRPC_TLS_REQUIRED)";
                self.server.complain(self.line.remote, "came in clear text", &why);
                self.drain(HANG_UP_WITHIN);
            }
            Err(exchange) => {
                let guest = match &self.guest {
                    Some(guest) => guest,
                    None => self.guest.insert(self.server.other.clone().open(&self.line)),
                };
                let mut work = guest.clone().handle(*exchange);
                if work.as_mut().poll(cx).is_pending() {
                    drop(self.server.clients.spawn(async move {
                        work.await;
                        drop(tasks);
                    }));
                }
            }
        }
    }

    /// At a deadline: a connection that is somebody's, or works on something, stays. Without this whoever asks
    /// once and never registers would keep a place for ever.
    fn may_stay(&self) -> bool {
        let is_guest = self.guest.as_ref().is_some_and(|guest| guest.is_registered());
        let is_busy = Arc::strong_count(&self.tasks) > 1;
        self.has_asked && !self.draining && !self.reserved && (is_guest || is_busy || self.is_peer)
    }

    /// From the first request of the door on, its opinion of this connection matters. A task of its own
    /// looks at it, so that connections of clients need not.
    fn follow_standing(&mut self) {
        let Some(visit) = self.visit.as_ref().filter(|_| self.standing.is_none()) else {
            return;
        };
        let mut standing = visit.standing();
        self.standing = Some(standing.clone());
        let line = self.line.clone();
        // It ends with the visit, which this session holds: that is where the opinion comes from.
        drop(self.server.network.spawn(async move {
            while standing.changed().await.is_ok() {
                line.order(Order::LookAtStanding);
            }
        }));
        // What was decided before the task looks is not a change to it.
        self.line.order(Order::LookAtStanding);
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..REQUESTS_PER_TURN {
            this.obey(cx);
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                if !this.may_stay() {
                    return Poll::Ready(());
                }
                this.close_in(this.server.limits.registered_within);
                continue;
            }
            match ready!(this.http.poll_accept(cx)) {
                Some(Ok(exchange)) => this.dispatch(cx, exchange),
                Some(Err(error)) => {
                    if error.is_io() {
                        debug!(remote = %this.line.remote, "connection: {error}");
                    } else {
                        this.server.complain(this.line.remote, "broke HTTP/2", &error);
                    }
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_peer {
            self.server.metrics.peers.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(guest) = &self.guest {
            guest.closed();
        }
    }
}
