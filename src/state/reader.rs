//! What readers see of the state.

mod naming;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use raft::Index;
use storage::{StorageError, Tables, TablesView};

use super::OpenError;
use super::apply::day_of;
use super::rows::{self, HistoryHead, RowError, StoredHistory};
use crate::config::{
    Client, ConfigId, Detail, Entry, Gray, GrayVersions, History, HistoryId, Query, Selected, Store, Variant,
};
use crate::model::{ConfigKey, Md5, NamespaceId, Page, PageRequest};
use crate::namespace::{Namespaces, Summary};

/// The applied state, for any number of readers.
///
/// Configs and namespaces are read from memory and cannot fail; details and history come from the
/// tables: those methods return a [`ReadError`], may wait for the disk or for a commit, and do not belong
/// on an async thread. A reader never sees less than what [`Reader::applied`] said before: what is
/// applied is shown first and counted afterwards. It may see more.
pub struct Reader {
    view: ArcSwap<View>,
    tables: Tables,
    applied: AtomicU64,
    level: AtomicU32,
    /// The tables are being replaced by a snapshot: what they say now is a mixture.
    reloading: AtomicBool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

/// What is kept in memory; replaced as a whole by a snapshot.
#[derive(Debug, Default)]
pub(super) struct View {
    store: Store,
    namespaces: ArcSwap<Namespaces>,
}

/// Why something could not be read from the tables.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The tables failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row makes no sense.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A snapshot is being installed; ask again.
    #[error("the state is being replaced by a snapshot; try again")]
    Reloading,
}

impl Reader {
    pub(super) fn new(tables: Tables, view: View, applied: Index, level: u32) -> Reader {
        Reader {
            view: ArcSwap::from_pointee(view),
            tables,
            applied: AtomicU64::new(applied.0),
            level: AtomicU32::new(level),
            reloading: AtomicBool::new(false),
        }
    }

    /// Everything up to this index is visible.
    pub fn applied(&self) -> Index {
        Index(self.applied.load(Ordering::Acquire))
    }

    /// The feature level of the cluster.
    pub fn feature_level(&self) -> u32 {
        self.level.load(Ordering::Acquire)
    }

    /// The formal version of a config.
    pub fn get(&self, key: &ConfigKey) -> Option<Arc<Entry>> {
        self.view.load().store.get(key)
    }

    /// What a client sees under this name: a variant that matches it, else the formal version.
    pub fn select(&self, key: &ConfigKey, client: &Client<'_>) -> Option<Selected> {
        self.view.load().store.select(key, client)
    }

    /// The variants of a config.
    pub fn grays(&self, key: &ConfigKey) -> GrayVersions {
        self.view.load().store.grays(key)
    }

    /// One variant of a config.
    pub fn gray(&self, key: &ConfigKey, name: &str) -> Option<Arc<Gray>> {
        self.grays(key).by_name(name).cloned()
    }

    /// The config of this id.
    pub fn by_id(&self, id: ConfigId) -> Option<Arc<Entry>> {
        self.view.load().store.by_id(id)
    }

    /// A page of the configs that meet the query, by id.
    pub fn search(&self, query: &Query, page: PageRequest) -> Page<Arc<Entry>> {
        self.view.load().store.search(query, page)
    }

    /// Calls `found` for each config that meets the query, by id: for exports.
    pub fn for_each(&self, query: &Query, found: impl FnMut(Arc<Entry>)) {
        self.view.load_full().store.for_each(query, found);
    }

    /// Number of configs.
    pub fn config_count(&self) -> usize {
        self.view.load().store.len()
    }

    /// Number of configs with variants.
    pub fn gray_count(&self) -> usize {
        self.view.load().store.gray_count()
    }

    /// All namespaces, the default one first, the others as they were made.
    pub fn namespaces(&self) -> Vec<Summary> {
        let view = self.view.load();
        let namespaces = view.namespaces.load();
        let ids = namespaces.in_order().into_iter();
        ids.filter_map(|id| namespaces.summary(&id, view.store.count(&id)))
            .collect()
    }

    /// One namespace, the default one included.
    pub fn namespace(&self, id: &NamespaceId) -> Option<Summary> {
        let view = self.view.load();
        view.namespaces.load().summary(id, view.store.count(id))
    }

    /// Everything about a config, from the tables.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn detail(&self, key: &ConfigKey) -> Result<Option<Detail>, ReadError> {
        let row = self.tables.get(rows::CONFIGS, key.as_bytes())?;
        self.whole(
            row.map(|row| rows::read_config(key.as_bytes(), row))
                .transpose()?,
        )
    }

    /// A page of a config's history, newest first; variants included.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history(&self, key: &ConfigKey, page: PageRequest) -> Result<Page<History>, ReadError> {
        let tables = self.tables()?;
        let head = head(&tables, key)?;
        let total = usize::try_from(head.len()).unwrap_or(usize::MAX);
        let positions = page.offset()..page.offset().saturating_add(page.size).min(total);
        let mut items = Vec::new();
        for position in positions {
            items.push(row(&tables, key, head, head.next - 1 - position as u64)?);
        }
        self.whole(Page::new(page, total, items))
    }

    /// A row of a config's history by its number; `None` when the config has none of this number.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history_row(&self, key: &ConfigKey, id: HistoryId) -> Result<Option<History>, ReadError> {
        let tables = self.tables()?;
        let head = head(&tables, key)?;
        let HistoryHead {
            mut oldest, mut next, ..
        } = head;
        // Later rows have higher numbers.
        while oldest < next {
            let middle = oldest + (next - oldest) / 2;
            let found = stored_row(&tables, key, middle)?;
            match found.row.id.cmp(&id) {
                std::cmp::Ordering::Equal => return self.whole(Some(filled(&tables, head, middle, found)?)),
                std::cmp::Ordering::Less => oldest = middle + 1,
                std::cmp::Ordering::Greater => next = middle,
            }
        }
        self.whole(None)
    }

    /// The newest row of a config's history that tells of the config (or variant) of this id.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history_newest(&self, key: &ConfigKey, config: ConfigId) -> Result<Option<History>, ReadError> {
        let tables = self.tables()?;
        let head = head(&tables, key)?;
        for sequence in (head.oldest..head.next).rev() {
            let found = stored_row(&tables, key, sequence)?;
            if found.row.config_id == config {
                return self.whole(Some(filled(&tables, head, sequence, found)?));
            }
        }
        self.whole(None)
    }

    /// True when a trim up to this moment would find something to do.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history_is_due(&self, before_ms: i64) -> Result<bool, ReadError> {
        let oldest = self.tables()?.scan(rows::HISTORY_DAYS, &[]).next().transpose()?;
        let Some((day_key, _)) = oldest else {
            return self.whole(false);
        };
        let (day, _) = rows::read_day_key(&day_key)?;
        self.whole(day < day_of(before_ms))
    }

    pub(super) fn namespaces_now(&self) -> Arc<Namespaces> {
        self.view.load().namespaces.load_full()
    }

    /// Shows what the tables have just got. Counted as applied last: who sees the index sees the rest.
    pub(super) fn show(
        &self,
        configs: HashMap<ConfigKey, Option<Arc<Entry>>>,
        grays: HashMap<ConfigKey, GrayVersions>,
        namespaces: Option<Namespaces>,
        applied: Index,
        level: u32,
    ) {
        let view = self.view.load();
        for (key, entry) in configs {
            view.store.publish(&key, entry);
        }
        for (key, versions) in grays {
            view.store.publish_grays(&key, versions);
        }
        if let Some(namespaces) = namespaces {
            view.namespaces.store(Arc::new(namespaces));
        }
        self.level.store(level, Ordering::Release);
        self.applied.store(applied.0, Ordering::Release);
    }

    pub(super) fn replace(&self, view: View, applied: Index, level: u32) {
        self.view.store(Arc::new(view));
        self.level.store(level, Ordering::Release);
        self.applied.store(applied.0, Ordering::Release);
        self.set_reloading(false);
    }

    pub(super) fn set_reloading(&self, reloading: bool) {
        self.reloading.store(reloading, Ordering::SeqCst);
    }

    /// The tables as they are at this moment.
    fn tables(&self) -> Result<TablesView, ReadError> {
        let view = self.tables.view();
        self.whole(view)
    }

    /// What was read, unless an install has begun meanwhile: then it may be a mixture.
    fn whole<T>(&self, read: T) -> Result<T, ReadError> {
        if self.reloading.load(Ordering::SeqCst) {
            Err(ReadError::Reloading)
        } else {
            Ok(read)
        }
    }
}

impl View {
    /// Reads what the tables hold.
    pub(super) fn read(tables: &Tables) -> Result<View, OpenError> {
        let store = Store::default();
        for row in tables.scan(rows::CONFIGS, &[]) {
            let (key, row) = row?;
            let entry = rows::read_config(&key, row)?.entry;
            store.publish(&entry.key.clone(), Some(Arc::new(entry)));
        }
        let mut grays: HashMap<ConfigKey, Vec<Arc<Gray>>> = HashMap::new();
        for row in tables.scan(rows::GRAYS, &[]) {
            let (key, row) = row?;
            let gray = rows::read_gray(&key, row)?;
            grays.entry(gray.key.clone()).or_default().push(Arc::new(gray));
        }
        for (key, variants) in grays {
            store.publish_grays(&key, GrayVersions::new(variants));
        }
        let mut namespaces = Namespaces::default();
        for row in tables.scan(rows::NAMESPACES, &[]) {
            let (key, row) = row?;
            let malformed = |_cause| RowError {
                table: "namespaces",
                why: "the key is malformed".into(),
            };
            let id = std::str::from_utf8(&key).map_err(malformed)?;
            namespaces.restore(NamespaceId::new(id), rows::read_namespace(row)?);
        }
        Ok(View {
            store,
            namespaces: ArcSwap::from_pointee(namespaces),
        })
    }
}

fn head(tables: &TablesView, key: &ConfigKey) -> Result<HistoryHead, ReadError> {
    let row = tables.get(rows::HISTORY_HEADS, key.as_bytes())?;
    Ok(row.map(rows::read_history_head).transpose()?.unwrap_or_default())
}

fn row(tables: &TablesView, key: &ConfigKey, head: HistoryHead, sequence: u64) -> Result<History, ReadError> {
    filled(tables, head, sequence, stored_row(tables, key, sequence)?)
}

fn stored_row(tables: &TablesView, key: &ConfigKey, sequence: u64) -> Result<StoredHistory, ReadError> {
    let row = tables.get(rows::HISTORY, &rows::history_key(key, sequence))?;
    let missing = || history_error(format!("row {sequence} of {key} is missing"));
    Ok(rows::read_history(key, row.ok_or_else(missing)?)?)
}

/// The row with its content, wherever that is: see [`rows::history`].
fn filled(
    tables: &TablesView,
    head: HistoryHead,
    sequence: u64,
    stored: StoredHistory,
) -> Result<History, ReadError> {
    let StoredHistory {
        mut row,
        content_follows,
    } = stored;
    if !content_follows {
        return Ok(row);
    }
    let (md5, content) = following(tables, &row.key, sequence + 1..head.next)?;
    if md5 != row.md5 {
        let why = format!("what follows row {sequence} of {} is not its content", row.key);
        return Err(history_error(why).into());
    }
    row.content = content;
    Ok(row)
}

/// The content of the first of these rows that tells of the formal version; of the config, if none does.
fn following(tables: &TablesView, key: &ConfigKey, later: Range<u64>) -> Result<(Md5, Bytes), ReadError> {
    for sequence in later {
        let StoredHistory { row, .. } = stored_row(tables, key, sequence)?;
        if row.variant == Variant::Formal {
            return Ok((row.md5, row.content));
        }
    }
    let gone = || history_error(format!("the newest row of {key} has no config"));
    let row = tables.get(rows::CONFIGS, key.as_bytes())?.ok_or_else(gone)?;
    let entry = rows::read_config(key.as_bytes(), row)?.entry;
    Ok((entry.md5, entry.content))
}

fn history_error(why: String) -> RowError {
    RowError {
        table: "history",
        why,
    }
}
