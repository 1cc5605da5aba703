//! Pushes of one client whose outcome is not known yet.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures of pushes, each with its subject.
///
/// A list that is polled whole: there are mostly none or one in it, and never more than
/// `outbox::OUTSTANDING_MAX`. A task for each would cost more than the push.
pub struct UnderWay<K>(Vec<(K, Push)>);

/// True once the client has taken it.
type Push = Pin<Box<dyn Future<Output = bool> + Send>>;

impl<K> Default for UnderWay<K> {
    fn default() -> UnderWay<K> {
        UnderWay(Vec::new())
    }
}

impl<K: Unpin> UnderWay<K> {
    /// Adds one; it begins with the next [`UnderWay::ended`].
    pub fn add(&mut self, subject: K, push: impl Future<Output = bool> + Send + 'static) {
        self.0.push((subject, Box::pin(push)));
    }

    /// Carries all on, waits until some have ended, and takes those out: subject, and whether the client
    /// has taken it. Waits for ever while there are none.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn ended(&mut self) -> Vec<(K, bool)> {
        poll_fn(|cx| {
            let (mut ended, mut at) = (Vec::new(), 0);
            while let Some((_, push)) = self.0.get_mut(at) {
                match push.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(taken) => {
                        let (subject, _) = self.0.remove(at);
                        ended.push((subject, taken));
                    }
                }
            }
            if ended.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(ended)
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_ends_by_itself_and_once() {
        let mut pushes = UnderWay::default();
        pushes.add(1, pending());
        pushes.add(2, ready(true));
        pushes.add(3, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            false
        });
        pushes.add(4, ready(false));
        assert_eq!(pushes.ended().await, [(2, true), (4, false)]);
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, pushes.ended()).await.is_err());
        assert_eq!(pushes.ended().await, [(3, false)]);
        let soon = Duration::from_secs(10);
        assert!(tokio::time::timeout(soon, pushes.ended()).await.is_err());
    }
}
