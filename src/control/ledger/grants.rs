//! What a key may do and what an end user may spend, joined from all tables for the filter.
//!
//! Somebody who tries keys by the million must not reach the database, so the ledger remembers a fingerprint of every key there
//! is ([`Known`]): a key that has none is unknown without a look.

use std::{
    collections::HashSet,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use tokio::time::Instant;

use super::{
    App,
    caller::role_of,
    db::{Db, DbError},
    former, log,
    problem::Problem,
    rows, windows,
};
use crate::core::model::{
    key_record::{EndUserRecord, Former, KeyRecord, Principal, Role},
    limits::{Budget, Limits, Several},
};

/// How often the change feed is looked at for what other ledgers did. A key that one of them removed is forgotten that soon.
pub const POLL_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked at at most for keys that nobody knows.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Keys and changes read at a time.
const PAGE: i64 = 5_000;

/// The grant of the key with this hash; `None` when there is no such key. A hash that was never a key's does not reach the
/// database.
pub async fn grant(app: &App, hash: &str) -> Result<Option<KeyRecord>, Problem> {
    if !is_known(app, hash).await? {
        return Ok(None);
    }
    let known = app.db.known();
    known.lookups.fetch_add(1, Ordering::Relaxed);
    read(app, hash).await
}

/// The same, whatever is known of the key beforehand: for calls that have just found its row.
pub async fn read(app: &App, hash: &str) -> Result<Option<KeyRecord>, Problem> {
    let (mut tx, revision) = app.db.snapshot().await?;
    let now_ms = app.now_ms();
    let mut row = rows::rows(&mut tx, &GRANT, vec![hash.into()]).await?.pop();
    let mut former = None;
    if row.is_none()
        && let Some((current, until)) = former::good(&mut tx, hash, now_ms).await?
    {
        row = rows::rows(&mut tx, &GRANT, vec![current.as_str().into()]).await?.pop();
        former = Some((current, until));
    }
    let Some(row) = row else { return Ok(None) };
    let lazy = !app.config().ledger.disable_reset_budget;
    let read = Read { row: &row, now_ms, lazy };
    let mut grant = read.grant(hash);
    grant.revision = u64::try_from(revision).unwrap_or_default();
    if let Some((current, until)) = former {
        let until = u64::try_from(until).unwrap_or_default();
        grant.expires_ms = Some(grant.expires_ms.map_or(until, |expires| expires.min(until)));
        grant.key.former.get_or_insert_default().current = Some(current);
    }
    further_spend(&mut tx, &mut grant, now_ms, lazy).await?;
    grant.global_spend = global_spend(&mut tx, now_ms, lazy).await?;
    Ok(Some(grant))
}

/// Whether a key with this hash may be there. One that another ledger, or an import, has just made is.
pub async fn is_known(app: &App, hash: &str) -> Result<bool, DbError> {
    let known = app.db.known();
    if !known.loaded.load(Ordering::Acquire) {
        known.refresh(&app.db).await?;
    }
    if known.has(hash) {
        return Ok(true);
    }
    // Blind for what other ledgers do, it cannot say that there is no such key.
    if known.failing.load(Ordering::Relaxed) {
        return Err(DbError::Unavailable("changes cannot be read".to_owned()));
    }
    known.look_again(&app.db).await?;
    Ok(known.has(hash))
}

/// An end user, known or not.
pub async fn end_user(app: &App, id: &str) -> Result<EndUserRecord, Problem> {
    let (mut tx, revision) = app.db.snapshot().await?;
    let config = app.config();
    let lazy = !config.ledger.disable_reset_budget;
    let now_ms = app.now_ms();
    let default = config.ledger.end_user_budget_id.clone();
    let mut end_user = EndUserRecord {
        scope: Principal { id: id.to_owned(), ..Principal::default() },
        revision: u64::try_from(revision).unwrap_or_default(),
        ..EndUserRecord::default()
    };
    let found = rows::rows(&mut tx, &END_USER, vec![id.into(), default.clone().into()]).await?.pop();
    if let Some(row) = found {
        let read = Read { row: &row, now_ms, lazy };
        let scope = &mut end_user.scope;
        scope.alias = read.text("e_alias");
        scope.blocked = read.int("e_blocked") == Some(1);
        (scope.limits, scope.budget) = (read.limits("b"), read.budget("b", "b", read.int("e_spend")));
        scope.model_budgets = windows::budgets(&read.json("b_model_max_budget"));
        end_user.region = read.text("e_allowed_model_region");
        end_user.default_model = read.text("e_default_model");
    } else if let Some(default) = default {
        let sql = format!("SELECT {} FROM tollgate_budgets b WHERE b.budget_id = $1", columns("b", BUDGET));
        if let Some(row) = rows::rows(&mut tx, &sql, vec![default.into()]).await?.pop() {
            let read = Read { row: &row, now_ms, lazy };
            (end_user.scope.limits, end_user.scope.budget) = (read.limits("b"), read.budget("b", "b", None));
            end_user.scope.model_budgets = windows::budgets(&read.json("b_model_max_budget"));
        }
    }
    let of_models = by_name(&mut end_user.scope.model_budgets);
    windows::spend(&mut tx, ("end_user_model", id), of_models, now_ms, lazy).await?;
    let budget = &mut end_user.scope.budget;
    budget.max = budget.max.or(config.ledger.max_end_user_budget);
    Ok(end_user)
}

/// Whether requests have to be asked for their end users: one is blocked or limited, or all are.
pub async fn end_users_matter(app: &App, connection: &mut AnyConnection) -> Result<bool, DbError> {
    if app.config().general.end_users_have_budgets {
        return Ok(true);
    }
    let known = app.db.known();
    let seen = known.end_users_changed.load(Ordering::Acquire);
    let remembered = *known.end_users.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, matter)) = remembered.filter(|(at, _)| *at == seen) {
        return Ok(matter);
    }
    let found = rows::rows(
        connection,
        "SELECT user_id FROM tollgate_end_users WHERE blocked = 1 OR budget_id IS NOT NULL \
         OR allowed_model_region IS NOT NULL OR default_model IS NOT NULL LIMIT 1",
        Vec::new(),
    )
    .await?;
    let matter = !found.is_empty();
    *known.end_users.write().unwrap_or_else(PoisonError::into_inner) = Some((seen, matter));
    Ok(matter)
}

/// Follows what other ledgers do, forever.
pub async fn follow(app: Arc<App>) {
    loop {
        let was_failing = app.db.known().failing.load(Ordering::Relaxed);
        if let Err(error) = app.db.known().refresh(&app.db).await {
            app.db.condition().note(&error);
            // What the database's condition explains is told there.
            if !was_failing && matches!(error, DbError::Statement(_)) {
                log(&format!("cannot read what other ledgers changed: {error}"));
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What a ledger remembers of the records in the database.
#[derive(Debug, Default)]
pub struct Known {
    /// Fingerprints of the hashes of all keys, and of some that were deleted: they only cost a look.
    keys: RwLock<HashSet<u64>>,
    /// The revision up to which changes were seen.
    seen: AtomicI64,
    loaded: AtomicBool,
    /// The last attempt to read changes failed.
    failing: AtomicBool,
    /// Grants that were looked for in the database.
    lookups: AtomicU64,
    /// Counts changes of end users' records.
    end_users_changed: AtomicU64,
    /// Whether end users matter, as of which of those changes.
    end_users: RwLock<Option<(u64, bool)>>,
    /// One refresh at a time, and when the last began.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

impl Known {
    /// Takes over the names of records that changed.
    pub fn note<'m>(&self, meters: impl Iterator<Item = &'m str>) {
        let mut prints = Vec::new();
        for meter in meters {
            match meter.split_once(':') {
                Some(("key", hash)) => prints.push(print(hash)),
                Some(("end_user", _)) => {
                    self.end_users_changed.fetch_add(1, Ordering::AcqRel);
                }
                _ => {}
            }
        }
        if !prints.is_empty() {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).extend(prints);
        }
    }

    /// Takes over what changed in the database since the last time; the first time, all keys.
    pub async fn refresh(&self, db: &Db) -> Result<(), DbError> {
        let mut turn = self.turn.lock().await;
        self.refresh_in(&mut turn, db).await
    }

    /// Takes over what was committed before this was called. All that ask at the same time share one look, and there is at most
    /// one in [`LOOK_EVERY`]: whoever tries keys by the million costs the database no more than that.
    async fn look_again(&self, db: &Db) -> Result<(), DbError> {
        let asked = Instant::now();
        let mut turn = self.turn.lock().await;
        match *turn {
            Some(began) if began > asked => return Ok(()),
            Some(began) => tokio::time::sleep_until(began + LOOK_EVERY).await,
            None => {}
        }
        self.refresh_in(&mut turn, db).await
    }

    async fn refresh_in(&self, turn: &mut Option<Instant>, db: &Db) -> Result<(), DbError> {
        *turn = Some(Instant::now());
        let result = match self.loaded.load(Ordering::Acquire) {
            true => self.catch_up(db).await,
            false => self.load(db).await,
        };
        self.failing.store(result.is_err(), Ordering::Relaxed);
        result
    }

    /// How often a grant was looked for in the database.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Whether there may be such a key.
    pub fn has(&self, hash: &str) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(&print(hash))
    }

    async fn load(&self, db: &Db) -> Result<(), DbError> {
        let (mut tx, revision) = db.snapshot().await?;
        let mut last = String::new();
        loop {
            let sql = format!("SELECT token FROM tollgate_keys WHERE token > $1 ORDER BY token LIMIT {PAGE}");
            let found = texts(&rows::rows(&mut tx, &sql, vec![last.into()]).await?)?;
            self.keys
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(found.iter().map(|token| print(token)));
            match found.into_iter().last() {
                Some(token) => last = token,
                None => break,
            }
        }
        // A former value may be good for a while. What is over by then only costs a look.
        let former = former::all_good(&mut tx, 0).await?;
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(former.iter().map(|token| print(token)));
        self.end_users_changed.fetch_add(1, Ordering::AcqRel);
        self.seen.store(revision, Ordering::Release);
        self.loaded.store(true, Ordering::Release);
        Ok(())
    }

    async fn catch_up(&self, db: &Db) -> Result<(), DbError> {
        let (mut tx, revision) = db.snapshot().await?;
        let seen = self.seen.load(Ordering::Acquire);
        if revision == seen {
            return Ok(());
        }
        if revision < seen {
            // Another database than before stands behind the same name.
            drop(tx);
            return self.load(db).await;
        }
        let found = rows::rows(
            &mut tx,
            "SELECT meter FROM tollgate_changes WHERE revision > $1 AND record_revision > $1",
            vec![seen.into()],
        )
        .await?;
        self.note(texts(&found)?.iter().map(String::as_str));
        self.seen.store(revision, Ordering::Release);
        Ok(())
    }
}

/// Eight bytes that stand for a key's hash.
fn print(hash: &str) -> u64 {
    let digest = Sha256::digest(hash.as_bytes());
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn texts(rows: &[AnyRow]) -> Result<Vec<String>, DbError> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Fills in what all who stand behind a grant have spent by model and by period.
async fn further_spend(
    connection: &mut AnyConnection,
    grant: &mut KeyRecord,
    now_ms: i64,
    lazy: bool,
) -> Result<(), DbError> {
    let KeyRecord { key, user, team, member, organization, .. } = grant;
    let of_team = team.as_deref().map(|team| format!("{}/", team.id)).unwrap_or_default();
    let scopes = [
        ("key", Some(key)),
        ("user", user.as_deref_mut()),
        ("team", team.as_deref_mut()),
        ("member", member.as_deref_mut()),
        ("org", organization.as_deref_mut()),
    ];
    for (kind, scope) in scopes {
        let Some(scope) = scope else { continue };
        let before = if kind == "member" { of_team.as_str() } else { "" };
        let id = format!("{before}{}", scope.counted_as());
        if !scope.model_budgets.is_empty() {
            let of_models = by_name(&mut scope.model_budgets);
            windows::spend(connection, (&format!("{kind}_model"), &id), of_models, now_ms, lazy).await?;
        }
        if let Some(several) = &mut scope.budget_limits {
            let several = several
                .0
                .iter_mut()
                .map(|budget| (budget.duration.clone().unwrap_or_default(), budget))
                .collect();
            windows::spend(connection, (&format!("{kind}_window"), &id), several, now_ms, lazy).await?;
        }
    }
    Ok(())
}

fn by_name(budgets: &mut HashMap<String, Budget>) -> HashMap<String, &mut Budget> {
    budgets.iter_mut().map(|(name, budget)| (name.clone(), budget)).collect()
}

async fn global_spend(connection: &mut AnyConnection, now_ms: i64, lazy: bool) -> Result<i64, DbError> {
    let sql = "SELECT spend, reset_at FROM tollgate_windows WHERE meter = 'global'";
    let Some(row) = rows::rows(connection, sql, Vec::new()).await?.pop() else { return Ok(0) };
    let is_over = lazy && row.try_get::<Option<i64>, _>(1)?.is_some_and(|at| at <= now_ms);
    Ok(if is_over { 0 } else { row.try_get(0)? })
}

const BUDGET: &str = "max_budget soft_budget max_parallel_requests tpm_limit rpm_limit model_max_budget budget_duration \
                      budget_reset_at";

/// `k.token AS k_token, …`
fn columns(alias: &str, names: &str) -> String {
    let all: Vec<String> =
        names.split_whitespace().map(|name| format!("{alias}.{name} AS {alias}_{name}")).collect();
    all.join(", ")
}

/// A key with everything that limits it.
static GRANT: LazyLock<String> = LazyLock::new(|| {
    let key = columns(
        "k",
        "key_name key_alias user_id spend expires models aliases max_parallel_requests metadata blocked tpm_limit rpm_limit \
         max_budget soft_budget budget_duration budget_reset_at allowed_routes model_max_budget budget_limits \
         first_token",
    );
    let user = columns(
        "u",
        "user_id user_alias user_role models max_budget spend max_parallel_requests tpm_limit rpm_limit \
         budget_duration budget_reset_at metadata model_max_budget budget_limits",
    );
    let team = columns(
        "t",
        "team_id team_alias metadata tpm_limit rpm_limit max_budget budget_duration models blocked spend \
         max_parallel_requests budget_reset_at model_aliases model_max_budget budget_limits",
    );
    let organization = columns("o", "organization_id organization_alias metadata models spend");
    format!(
        "SELECT {key}, {user}, {team}, {organization}, {}, {}, {}, {}, {}, {} FROM tollgate_keys k \
         LEFT JOIN tollgate_users u ON u.user_id = k.user_id \
         LEFT JOIN tollgate_teams t ON t.team_id = k.team_id \
         LEFT JOIN tollgate_team_members m ON m.team_id = k.team_id AND m.user_id = k.user_id \
         LEFT JOIN tollgate_organizations o ON o.organization_id = COALESCE(k.organization_id, t.organization_id) \
         LEFT JOIN tollgate_organization_members n ON n.organization_id = o.organization_id AND n.user_id = k.user_id \
         LEFT JOIN tollgate_budgets kb ON kb.budget_id = k.budget_id \
         LEFT JOIN tollgate_budgets mb ON mb.budget_id = m.budget_id \
         LEFT JOIN tollgate_budgets ob ON ob.budget_id = o.budget_id \
         LEFT JOIN tollgate_budgets nb ON nb.budget_id = n.budget_id \
         WHERE k.token = $1",
        columns("m", "user_id spend"),
        columns("kb", BUDGET),
        columns("mb", BUDGET),
        columns("ob", BUDGET),
        columns("n", "user_id spend"),
        columns("nb", BUDGET),
    )
});

/// An end user ($1) with its budget, or the one with the id $2.
static END_USER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, {} FROM tollgate_end_users e \
         LEFT JOIN tollgate_budgets b ON b.budget_id = COALESCE(e.budget_id, $2) WHERE e.user_id = $1",
        columns("e", "alias spend allowed_model_region default_model blocked"),
        columns("b", BUDGET),
    )
});

/// One row of the joined tables, by `<alias>_<column>`.
struct Read<'r> {
    row: &'r AnyRow,
    now_ms: i64,
    /// A period that is over counts as started again.
    lazy: bool,
}

impl Read<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.row.try_get::<Option<String>, _>(name).ok().flatten()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.row.try_get::<Option<i64>, _>(name).ok().flatten()
    }

    fn count(&self, alias: &str, name: &str) -> Option<u64> {
        // A limit below nothing is nothing.
        self.int(&format!("{alias}_{name}")).map(|number| u64::try_from(number).unwrap_or(0))
    }

    fn json(&self, name: &str) -> Value {
        self.text(name).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    fn list(&self, name: &str) -> Vec<String> {
        strings(&self.json(name))
    }

    fn limits(&self, alias: &str) -> Limits {
        Limits {
            rpm: self.count(alias, "rpm_limit"),
            tpm: self.count(alias, "tpm_limit"),
            parallel: self.count(alias, "max_parallel_requests"),
        }
    }

    /// The budget that `alias` says, whose period `period` says.
    fn budget(&self, alias: &str, period: &str, spend: Option<i64>) -> Budget {
        let duration = self.text(&format!("{period}_budget_duration"));
        let reset_at = self.int(&format!("{period}_budget_reset_at"));
        let is_over = self.lazy && duration.is_some() && reset_at.is_some_and(|at| at <= self.now_ms);
        Budget {
            max: self.int(&format!("{alias}_max_budget")),
            soft: self.int(&format!("{alias}_soft_budget")),
            spend: if is_over { 0 } else { spend.unwrap_or_default() },
            duration,
            reset_at_ms: reset_at.and_then(|at| u64::try_from(at).ok()),
        }
    }

    fn grant(&self, hash: &str) -> KeyRecord {
        let metadata = self.json("k_metadata");
        let is_set = |name: &str| self.text(name).is_some();
        KeyRecord {
            key: self.key(hash, &metadata),
            name: self.text("k_key_name").map(String::into_boxed_str),
            expires_ms: self.int("k_expires").map(|at| u64::try_from(at).unwrap_or(0)),
            allowed_routes: self.list("k_allowed_routes"),
            enforced_params: strings(member(&metadata, "enforced_params")),
            disable_fallbacks: *member(&metadata, "disable_fallbacks") == Value::Bool(true),
            role: match self.text("u_user_id") {
                Some(_) => role_of(&self.text("u_user_role").into()),
                None => Role::Unknown,
            },
            user: self.owner().map(Box::new),
            team: is_set("t_team_id").then(|| Box::new(self.team())),
            member: is_set("m_user_id").then(|| Box::new(self.member())),
            organization: is_set("o_organization_id").then(|| Box::new(self.organization())),
            organization_member: is_set("n_user_id").then(|| Box::new(self.organization_member())),
            ..KeyRecord::default()
        }
    }

    fn key(&self, hash: &str, metadata: &Value) -> Principal {
        let (own, shared) = (self.limits("k"), self.limits("kb"));
        // A key without a period of its own has that of its budget row.
        let period = if self.text("k_budget_duration").is_some() { "k" } else { "kb" };
        let mut budget = self.budget("k", period, self.int("k_spend"));
        budget.max =
            budget.max.or(self.int("kb_max_budget")).map(|max| max.saturating_add(self.raise(metadata)));
        budget.soft = budget.soft.or(self.int("kb_soft_budget"));
        let model_budgets = match windows::budgets(&self.json("k_model_max_budget")) {
            own if own.is_empty() => windows::budgets(&self.json("kb_model_max_budget")),
            own => own,
        };
        Principal {
            id: hash.to_owned(),
            former: self
                .text("k_first_token")
                .filter(|first| first != hash)
                .map(|first| Box::new(Former { counted: Some(first), current: None })),
            alias: self.text("k_key_alias"),
            blocked: self.int("k_blocked") == Some(1),
            models: self.list("k_models"),
            limits: Limits {
                rpm: own.rpm.or(shared.rpm),
                tpm: own.tpm.or(shared.tpm),
                parallel: own.parallel.or(shared.parallel),
            },
            budget,
            budget_limits: Several::of(
                self.raised(windows::several(&self.json("k_budget_limits")), metadata),
            ),
            model_budgets,
            aliases: pairs(&self.json("k_aliases")),
            ..described(metadata)
        }
    }

    /// `temp_budget_increase`, until `temp_budget_expiry`.
    fn raise(&self, metadata: &Value) -> i64 {
        let is_on =
            rows::time(member(metadata, "temp_budget_expiry")).is_some_and(|expiry| expiry > self.now_ms);
        if is_on { rows::money(member(metadata, "temp_budget_increase")).unwrap_or(0) } else { 0 }
    }

    /// Budgets side by side, each raised as that of the whole key is.
    fn raised(&self, mut budgets: Vec<Budget>, metadata: &Value) -> Vec<Budget> {
        let raise = self.raise(metadata);
        for budget in &mut budgets {
            budget.max = budget.max.map(|max| max.saturating_add(raise));
        }
        budgets
    }

    /// Whose the key is. One whose user has no record is that user's all the same, who has no limits.
    fn owner(&self) -> Option<Principal> {
        match self.text("u_user_id") {
            Some(_) => Some(self.user()),
            None => Some(Principal { id: self.text("k_user_id")?, ..Principal::default() }),
        }
    }

    fn user(&self) -> Principal {
        Principal {
            id: self.text("u_user_id").unwrap_or_default(),
            alias: self.text("u_user_alias"),
            models: self.list("u_models"),
            limits: self.limits("u"),
            budget: self.budget("u", "u", self.int("u_spend")),
            budget_limits: Several::of(windows::several(&self.json("u_budget_limits"))),
            // As with all money of a user: keys of a team spend the team's.
            model_budgets: match self.text("t_team_id") {
                None => windows::budgets(&self.json("u_model_max_budget")),
                Some(_) => HashMap::new(),
            },
            ..described(&self.json("u_metadata"))
        }
    }

    fn team(&self) -> Principal {
        Principal {
            id: self.text("t_team_id").unwrap_or_default(),
            alias: self.text("t_team_alias"),
            blocked: self.int("t_blocked") == Some(1),
            models: self.list("t_models"),
            limits: self.limits("t"),
            budget: self.budget("t", "t", self.int("t_spend")),
            budget_limits: Several::of(windows::several(&self.json("t_budget_limits"))),
            model_budgets: windows::budgets(&self.json("t_model_max_budget")),
            aliases: pairs(&self.json("t_model_aliases")),
            ..described(&self.json("t_metadata"))
        }
    }

    fn member(&self) -> Principal {
        Principal {
            id: self.text("m_user_id").unwrap_or_default(),
            limits: self.limits("mb"),
            budget: self.budget("mb", "mb", self.int("m_spend")),
            model_budgets: windows::budgets(&self.json("mb_model_max_budget")),
            ..Principal::default()
        }
    }

    fn organization_member(&self) -> Principal {
        Principal {
            id: self.text("n_user_id").unwrap_or_default(),
            limits: self.limits("nb"),
            budget: self.budget("nb", "nb", self.int("n_spend")),
            ..Principal::default()
        }
    }

    fn organization(&self) -> Principal {
        Principal {
            id: self.text("o_organization_id").unwrap_or_default(),
            alias: self.text("o_organization_alias"),
            models: self.list("o_models"),
            limits: self.limits("ob"),
            budget: self.budget("ob", "ob", self.int("o_spend")),
            model_budgets: windows::budgets(&self.json("ob_model_max_budget")),
            ..described(&self.json("o_metadata"))
        }
    }
}

/// What metadata says of limits and tags.
fn described(metadata: &Value) -> Principal {
    let counts = |name: &str| match member(metadata, name) {
        Value::Object(map) => {
            map.iter().filter_map(|(model, value)| Some((model.clone(), value.as_u64()?))).collect()
        }
        _ => HashMap::new(),
    };
    Principal {
        model_rpm: counts("model_rpm_limit"),
        model_tpm: counts("model_tpm_limit"),
        tags: strings(member(metadata, "tags")),
        ..Principal::default()
    }
}

fn member<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn strings(value: &Value) -> Vec<String> {
    let texts = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    value.as_array().map(texts).unwrap_or_default()
}

fn pairs(value: &Value) -> HashMap<String, String> {
    let texts = |map: &Map<String, Value>| {
        map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    };
    value.as_object().map(texts).unwrap_or_default()
}

#[cfg(test)]
mod tests;
