//! From a change of the state to those who wait for it.
//!
//! ```text
//!  applier thread            pusher task                    whoever waits
//!  ConfigPush::on_change ──▶ due configs ──▶ Session::mark ──▶ Session::due
//!    (O(1) per change)        (once per watcher)   (coalesced per config)
//! ```
//!
//! **Writers never wait for readers.** The applier notes *which* config changed, once however often it
//! changes until the pusher takes it; the pusher marks sessions and wakes them; a session that is slow has
//! a set of marks, no queue, and finds out about the present when it looks. So there is nothing that could
//! overflow, nothing that could be dropped, and nobody is held up by another one.
//!
//! **Nothing is told older after newer.** A mark says "look again", never what there was: whoever is woken
//! reads the state, which has the change (events come after readers can see it) or a later one.
//!
//! **Nothing is lost** as long as the one who waits registers first and compares afterwards: a change
//! before the comparison is seen by it, a change after it finds the watch.
//!
//! A connection that stays is told by pushes that it acknowledges: [`Outbox`] keeps what still has to be
//! told and what was not acknowledged, [`UnderWay`] the pushes themselves, [`Reminders`] what was acknowledged and
//! not looked at. [`FuzzyPush`] does for patterns
//! over names what [`ConfigPush`] does for names. A [`Newcomer`] has not said what it watches.
//!
//! What is *not* in here: which answer a change is for whom (`service::listen`), wire forms, sockets.

mod config;
mod fuzzy;
mod listeners;
mod marks;
mod naming;
mod newcomers;
mod outbox;
mod pacing;
mod patterns;
mod reminders;
mod session;
mod udp;
mod under_way;
mod watch;

pub use config::{ConfigPush, Full};
pub use fuzzy::{FuzzyMarks, FuzzyPush, FuzzySession};
pub use listeners::{Listeners, Name, Slot, WatcherId};
pub use marks::{Due, Marks, Which};
pub use naming::{Clusters, Full as NamingFull, NamingPush, NamingSession, NamingWatch, Subject, Who};
pub use newcomers::Newcomer;
pub use outbox::{Failed, Outbox, Retries};
pub use pacing::{Pacing, window};
pub use patterns::{FuzzyIndex, FuzzyPattern, Look, MATCHES_MAX, TooManyPatterns};
pub use reminders::Reminders;
pub use session::Session;
pub use udp::{UdpDue, UdpPush, UdpTarget, UdpWho};
pub use under_way::UnderWay;
pub use watch::Watch;
