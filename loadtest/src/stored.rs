//! What a run stores before it begins, and what it looks for after it has ended.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

use crate::content::Contents;
use crate::figures::Errors;
use crate::http::Connection;
use crate::run::{CATCH_UP, PATIENCE, Plan, REDIAL, data_id, get_request, publish_request};

/// Connections used to write and to look for contents outside the measured part.
const HELPERS: usize = 32;

/// Publishes version 0 of every key and waits until every address serves the last ones.
pub(crate) async fn publish_all(
    plan: &Plan,
    addresses: &[SocketAddr],
    contents: &Contents,
) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for (number, address) in addresses.iter().cycle().take(HELPERS).enumerate() {
        let connection = Connection::open(*address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        connections.push((number, connection));
    }
    let publish = connections
        .into_iter()
        .map(|(number, mut connection)| async move {
            let (mut request, mut form, mut content) = (Vec::new(), Vec::new(), Vec::new());
            for key in (number..plan.keys as usize).step_by(HELPERS) {
                let key = u32::try_from(key)?;
                content.clear();
                contents.write(key, 0, &mut content);
                publish_request(
                    &mut request,
                    &mut form,
                    &plan.addresses[number % addresses.len()],
                    plan,
                    key,
                    &content,
                );
                let answer = timeout(PATIENCE, connection.exchange(&request))
                    .await
                    .context("publish before the run")??;
                anyhow::ensure!(
                    answer.status == 200,
                    "publish before the run: {} {}",
                    answer.status,
                    answer.text()
                );
            }
            anyhow::Ok(())
        });
    join_all(publish).await?;
    let last = plan.keys.saturating_sub(HELPERS as u32)..plan.keys;
    for address in addresses {
        let mut connection = Connection::open(*address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        for key in last.clone() {
            let found = find(plan, contents, (*address, &mut connection), key, 0).await?;
            anyhow::ensure!(
                found,
                "{address} does not serve what was published before the run (key {key})"
            );
        }
    }
    Ok(())
}

/// Looks for the last acknowledged version of every key, given as pairs, on every address.
pub(crate) async fn read_back(
    plan: &Plan,
    addresses: &[SocketAddr],
    contents: &Contents,
    acknowledged: &[(u32, u32)],
) -> anyhow::Result<Errors> {
    let mut errors = Errors::default();
    for address in addresses {
        let lost = (0..HELPERS).map(|helper| async move {
            let mut missing = Vec::new();
            let mut connection = Connection::open(*address)
                .await
                .with_context(|| format!("connect to {address}"))?;
            for (key, version) in acknowledged.iter().skip(helper).step_by(HELPERS) {
                if !find(plan, contents, (*address, &mut connection), *key, *version).await? {
                    missing.push((*key, *version));
                }
            }
            anyhow::Ok(missing)
        });
        for (key, version) in join_all(lost).await?.into_iter().flatten() {
            errors.lost += 1;
            errors.first.get_or_insert_with(|| {
                format!(
                    "{} version {version} was acknowledged and is not on {address}",
                    data_id(plan, key)
                )
            });
        }
    }
    Ok(errors)
}

/// Whether the address serves this version of this key, now or within [`CATCH_UP`].
async fn find(
    plan: &Plan,
    contents: &Contents,
    (address, connection): (SocketAddr, &mut Connection),
    key: u32,
    version: u32,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + CATCH_UP;
    let mut request = Vec::new();
    get_request(&mut request, &address.to_string(), plan, key);
    loop {
        let answer = timeout(PATIENCE, connection.exchange(&request))
            .await
            .context("read back")??;
        if answer.status == 200 && contents.matches(key, version, answer.body) {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(REDIAL).await;
    }
}

/// Runs the futures side by side on this task and returns their results, or the first error.
pub(crate) async fn join_all<T, F>(futures: impl Iterator<Item = F>) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (future, result) in pending.iter_mut().filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *result = Some(value),
                std::task::Poll::Pending => waiting = true,
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, result)| result).collect()
}
