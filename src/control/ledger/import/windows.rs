//! What keys, teams and users have spent of each of their budgets side by side (`budget_limits`).

use jiff::Timestamp;

use super::{Line, Report, source::Source, text};
use crate::control::ledger::{
    bulk,
    db::{DbError, Tx},
    resets,
    rows::{self, Stored},
};

const TABLE: &str = "LiteLLM_BudgetWindowSpend";
const KEY: [&str; 3] = ["entity_type", "entity_id", "window_duration"];

/// Takes over the periods that are not over. LiteLLM keeps when one began, which is its duration in seconds before it ends.
pub async fn import(source: &mut Source, tx: &mut Tx, report: &mut Report) -> Result<(), DbError> {
    let Some(mut pages) = source.table(TABLE).await? else { return Ok(()) };
    let now_ms = Timestamp::now().as_millisecond();
    let statement = "INSERT INTO tollgate_windows (meter, spend, period, reset_at) VALUES {} ON CONFLICT (meter) DO NOTHING \
                     RETURNING meter";
    let mut line = Line { what: "spend by period", found: 0, imported: 0, skipped: 0 };
    while let Some(found) = source.page(&mut pages, &KEY).await? {
        line.found += found.len();
        let open = |row: &rows::Record| -> Option<Vec<Stored>> {
            let [owner, id, period] = KEY.map(|name| text(row, name));
            let owner = owner.to_ascii_lowercase();
            let ends = resets::expires(period, rows::time(row.get("window_start")?)?).ok()?;
            let is_known = matches!(owner.as_str(), "key" | "team" | "user");
            (is_known && ends > now_ms).then(|| {
                let spend = row.get("spend").and_then(rows::money).unwrap_or_default();
                vec![format!("{owner}_window:{id}/{period}").into(), spend.into(), period.into(), ends.into()]
            })
        };
        let values: Vec<Vec<Stored>> = found.iter().filter_map(open).collect();
        line.skipped += found.len() - values.len();
        line.imported += bulk::run(tx.connection(), statement, values).await?.len();
    }
    report.lines.push(line);
    Ok(())
}
