//! What is known of a finished call, in one table: the access log, the ledger's event and the row of its spend log are views of
//! it.
//!
//! A fact is one row of the table below: its doc, name and type, and the views that have it.
//!
//! | view | written by | read by |
//! |---|---|---|
//! | `event` | [`CallRecord::write_event`], as JSON members of the name that serde reads | the ledger, with serde |
//! | `log`, `log_always` | [`CallRecord::write_log`], as JSON members of that name | readers of the access log |
//! | `row` | [`CallRecord::cell`], for that column of the spend log | the ledger's database |
//! | `most` | [`CallRecord::cut_texts`]: the bytes that the ledger keeps of a text | |
//!
//! A fact that says nothing (no text, 0, false) is left out of its views, except where `log_always` stands.
//!
//! Long, because all facts stand in one table, with what writes a fact of each type.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, ser::Error as _};

use super::{key_record::KeyRecord, money::Money, usage::Usage, virtual_key::VirtualKey};
use crate::core::codec::json::Writer;

/// Longest text that the ledger keeps of most facts, in bytes. Those of a day's sum, eight together, stay below the 2,704 bytes
/// that Postgres indexes.
const TEXT: usize = 300;
/// Longest end user.
const END_USER: usize = 1_000;
/// Longest words of a failure, which no index has.
const MESSAGE: usize = 1_100;

macro_rules! call_record {
    ($(
        $(#[$doc:meta])*
        $field:ident: $type:ty =>
            $( event $event:ident )?
            $( log $log:literal )?
            $( log_always $always:literal )?
            $( row $row:literal )?
            $( most $most:expr )?
        ;
    )*) => {
        /// A finished call.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        pub struct CallRecord {
            $( $(#[$doc])* pub $field: $type, )*
        }

        impl CallRecord {
            /// Appends the ledger's event, one JSON object.
            pub fn write_event(&self, out: &mut Vec<u8>) {
                let mut json = Writer::begin(out);
                $( $(
                    if !self.$field.is_silent() {
                        self.$field.write(stringify!($event), &mut json);
                    }
                )? )*
                json.end();
            }

            /// Appends the access log's members, each after a comma.
            pub fn write_log(&self, out: &mut Vec<u8>) {
                let mut json = Writer::follow(out);
                $(
                    $( if !self.$field.is_silent() { self.$field.write($log, &mut json); } )?
                    $( self.$field.write($always, &mut json); )?
                )*
            }

            /// What stands in a column of the spend log; `None` for a column that is no fact's own.
            pub fn cell(&self, column: &str) -> Option<Cell<'_>> {
                match column {
                    $( $( $row => Some(self.$field.cell()), )? )*
                    _ => None,
                }
            }

            /// Cuts every text that comes from a client to what the ledger keeps of it.
            pub fn cut_texts(&mut self) {
                $( $( self.$field.each_text(&mut |text| text.truncate(text.floor_char_boundary($most))); )? )*
            }
        }
    };
}

call_record! {
    /// Names the record to the ledger; two never share one. Empty when the ledger is not to hear of it.
    id: String => event id row "request_id" most TEXT;
    /// The path as the client wrote it, its beginning.
    #[serde(skip)]
    path: String => log_always "path";
    /// The call's id (`x-litellm-call-id`), which a client may choose.
    call_id: String => event call_id log_always "call_id" row "call_id" most TEXT;
    /// `x-request-id`, else the call's id.
    #[serde(skip)]
    request_id: String => log_always "request_id";
    /// The id in the response's body, when it has one.
    response_id: Option<String> => event response_id row "response_id" most TEXT;
    /// LiteLLM's call type (`acompletion`).
    call_type: Cow<'static, str> => event call_type log_always "call_type" row "call_type" most TEXT;
    /// The model that was asked for.
    #[serde(skip)]
    asked_model: Option<String> => log "model";
    /// The group that served (or failed last), as it is configured.
    #[serde(skip)]
    group: Option<String> => log "model_group";
    /// The model at the provider: of the attempt, else of the one that was planned.
    model: String => event model row "model" most TEXT;
    /// The group that served (or failed last); what was asked for, where that is a wildcard.
    model_group: String => event model_group row "model_group" most TEXT;
    /// The deployment's id.
    model_id: String => event model_id log "model_id" row "model_id" most TEXT;
    /// The deployment's brand.
    provider: Cow<'static, str> => event provider log "provider" row "custom_llm_provider" most TEXT;
    /// The model that an attempt asked the provider for.
    #[serde(skip)]
    attempted_model: Option<String> => log "provider_model";
    /// The deployment's base URL without a query.
    api_base: String => event api_base row "api_base";
    /// The virtual key, when the caller had one.
    #[serde(skip)]
    grant: Option<Arc<VirtualKey>> => log "";
    /// Hash of the key (of the master key too).
    api_key: String => event api_key row "api_key" most TEXT;
    /// Whose key it is.
    user: Option<String> => event user row "user_id" most TEXT;
    /// The key's team.
    team: Option<String> => event team row "team_id" most TEXT;
    /// The key's (or its team's) organization.
    organization: Option<String> => event organization row "organization_id" most TEXT;
    /// The end user that the request named.
    end_user: Option<String> => event end_user log "end_user" row "end_user" most END_USER;
    /// The client's address, when it is not that of its connection.
    #[serde(skip)]
    forwarded_for: Option<String> => log "client_address";
    /// Address of the client.
    ip: Option<String> => event ip row "requester_ip_address" most TEXT;
    /// Was a stream asked for.
    #[serde(skip)]
    streaming: bool => log_always "stream";
    /// Attempts made.
    #[serde(skip)]
    attempts: u32 => log_always "attempts";
    /// Attempts on the last group after its first.
    #[serde(skip)]
    retries: u32 => log_always "retries";
    /// Groups left behind.
    #[serde(skip)]
    fallbacks: u32 => log_always "fallbacks";
    /// Milliseconds from the request's headers to the first part of the response.
    #[serde(skip)]
    first_after_ms: Option<u64> => log "first_ms";
    /// All that was used, when it is known.
    #[serde(skip)]
    usage: Option<Usage> => log "";
    /// Input tokens.
    prompt_tokens: u64 => event prompt_tokens row "prompt_tokens";
    /// Output tokens.
    completion_tokens: u64 => event completion_tokens row "completion_tokens";
    /// The sum of both, or what the provider says it is.
    total_tokens: u64 => event total_tokens row "total_tokens";
    /// Input tokens that the provider read from its cache.
    cache_read_tokens: u64 => event cache_read_tokens;
    /// Input tokens that the provider wrote to its cache.
    cache_creation_tokens: u64 => event cache_creation_tokens;
    /// The tokens were estimated.
    estimated: bool => event estimated;
    /// The stream broke, or the client left, before its end.
    #[serde(skip)]
    incomplete: bool => log "incomplete";
    /// What it cost, when usage and price are known.
    #[serde(skip)]
    cost: Option<Money> => log "cost";
    /// What it cost as far as it is known, in 10⁻¹² dollars.
    spend: i64 => event spend row "spend";
    /// What of it a mock cost, in 10⁻¹² dollars: its caller's to pay, and no expense of the gateway's.
    mocked: i64 => event mocked;
    /// Unix milliseconds of the request's headers. Lists are ordered by it, so it is always there.
    start_ms: u64 => event start_ms row "start_time";
    /// Unix milliseconds of its end.
    end_ms: u64 => event end_ms;
    /// Unix milliseconds of the first part of the response.
    first_ms: Option<u64> => event first_ms row "completion_start_time";
    /// The status that the client got; none when it went away before.
    status: Option<u16> => event status;
    /// What the failure is called.
    #[serde(skip)]
    failure: Option<Cow<'static, str>> => log "error";
    /// The failure's message, as far as its words are ours.
    #[serde(skip)]
    failure_message: Option<String> => log "error_message";
    /// LiteLLM's name of the failure's class, when it failed.
    error: Option<String> => event error most TEXT;
    /// What the client was told of it.
    message: Option<String> => event message most MESSAGE;
    /// The call came to no deployment and used nothing: it has a row and counts in no sum.
    refused: bool => event refused;
    /// The request's tags, its key's and its team's.
    tags: Vec<String> => event tags row "request_tags" most TEXT;
    /// `litellm_session_id` of the request.
    session: Option<String> => event session row "session_id" most TEXT;
    /// Meters that were charged with the spend on the node (those with a budget). The ledger says their totals.
    #[serde(rename = "metered")]
    budgeted_meters: Vec<String> => event metered;
    /// What attempts cost at deployments and providers that have a budget. The ledger says their totals too.
    #[serde(rename = "charged")]
    meter_charges: Vec<MeterCharge> => event charged;
    /// The response came whole.
    #[serde(skip)]
    is_whole: bool => ;
}

impl CallRecord {
    /// What the ledger is to be told; nothing when there is none.
    pub fn event(&self) -> Option<&CallRecord> {
        (!self.id.is_empty()).then_some(self)
    }

    /// Whether the client got what it asked for.
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

impl Serialize for CallRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = Vec::new();
        self.write_event(&mut event);
        let raw: &serde_json::value::RawValue = serde_json::from_slice(&event).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Spend of a deployment or a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeterCharge {
    /// `deployment:…` or `provider:…`.
    pub meter: String,
    /// In 10⁻¹² dollars.
    pub spend: i64,
    /// The duration after which its spend starts again. Nodes know it, also for models that are not in the ledger's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

impl MeterCharge {
    /// Adds to a list, in which every meter stands once.
    pub fn put(list: &mut Vec<MeterCharge>, new: &MeterCharge) {
        match list.iter_mut().find(|old| old.meter == new.meter) {
            Some(old) => {
                old.spend = old.spend.saturating_add(new.spend);
                old.period.clone_from(&new.period);
            }
            None => list.push(new.clone()),
        }
    }
}

/// A fact as a column of the spend log has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'f> {
    /// A text, if there is one.
    Text(Option<&'f str>),
    /// A number, or a time in Unix milliseconds, if there is one.
    Number(Option<i64>),
    /// A list of texts.
    Texts(&'f [String]),
}

/// How a type of fact is written in the views.
trait Fact {
    /// Whether it says nothing.
    fn is_silent(&self) -> bool;

    /// Writes it as a member, or as several with names of their own.
    fn write(&self, name: &'static str, json: &mut Writer<'_>);

    /// What a column has when there is none.
    const NULL: Cell<'static> = Cell::Text(None);

    /// The fact as a column of the spend log has it. A fact without a column needs none.
    fn cell(&self) -> Cell<'_> {
        Self::NULL
    }

    /// Shows each of its texts.
    fn each_text(&mut self, _: &mut dyn FnMut(&mut String)) {}
}

impl Fact for String {
    fn is_silent(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.text(name, self);
    }

    fn cell(&self) -> Cell<'_> {
        Cell::Text(Some(self))
    }

    fn each_text(&mut self, show: &mut dyn FnMut(&mut String)) {
        show(self);
    }
}

impl Fact for Cow<'static, str> {
    fn is_silent(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.text(name, self);
    }

    fn cell(&self) -> Cell<'_> {
        Cell::Text(Some(self))
    }

    fn each_text(&mut self, show: &mut dyn FnMut(&mut String)) {
        // One of ours is short.
        if let Cow::Owned(text) = self {
            show(text);
        }
    }
}

impl<F: Fact> Fact for Option<F> {
    const NULL: Cell<'static> = F::NULL;

    fn is_silent(&self) -> bool {
        self.is_none()
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        self.iter().for_each(|fact| fact.write(name, json));
    }

    fn cell(&self) -> Cell<'_> {
        self.as_ref().map_or(F::NULL, F::cell)
    }

    fn each_text(&mut self, show: &mut dyn FnMut(&mut String)) {
        self.iter_mut().for_each(|fact| fact.each_text(show));
    }
}

impl Fact for Vec<String> {
    fn is_silent(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.texts_if(name, self);
    }

    fn cell(&self) -> Cell<'_> {
        Cell::Texts(self)
    }

    fn each_text(&mut self, show: &mut dyn FnMut(&mut String)) {
        self.iter_mut().for_each(show);
    }
}

impl Fact for Vec<MeterCharge> {
    fn is_silent(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.value(name, self);
    }
}

impl Fact for bool {
    fn is_silent(&self) -> bool {
        !self
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.flag(name, *self);
    }
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl Fact for $type {
            const NULL: Cell<'static> = Cell::Number(None);

            fn is_silent(&self) -> bool {
                *self == 0
            }

            fn write(&self, name: &'static str, json: &mut Writer<'_>) {
                json.number(name, *self);
            }

            fn cell(&self) -> Cell<'_> {
                Cell::Number(Some(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )* };
}

numbers!(u16 u32 u64 i64);

impl Fact for Money {
    fn is_silent(&self) -> bool {
        false
    }

    fn write(&self, name: &'static str, json: &mut Writer<'_>) {
        json.text(name, &self.to_text());
    }
}

impl Fact for Usage {
    fn is_silent(&self) -> bool {
        false
    }

    fn write(&self, _: &'static str, json: &mut Writer<'_>) {
        json.number("prompt_tokens", self.prompt_tokens);
        json.number("completion_tokens", self.completion_tokens);
        json.number("total_tokens", self.total_tokens);
        json.number("cached_tokens", self.cached_tokens);
        json.flag("estimated", self.estimated);
    }
}

impl Fact for Arc<VirtualKey> {
    fn is_silent(&self) -> bool {
        false
    }

    fn write(&self, _: &'static str, json: &mut Writer<'_>) {
        self.write_log(json);
    }
}

impl KeyRecord {
    /// Writes the holders of the key as the access log names them: the key by its hash and its alias, its team and its user.
    pub fn write_log(&self, json: &mut Writer<'_>) {
        json.text_if("key_hash", Some(self.key.id.as_str()).filter(|id| !id.is_empty()));
        json.text_if("key_alias", self.key.alias.as_deref());
        json.text_if("user_id", self.user.as_ref().map(|user| user.id.as_str()));
        json.text_if("team_id", self.team.as_ref().map(|team| team.id.as_str()));
        json.text_if("team_alias", self.team.as_ref().and_then(|team| team.alias.as_deref()));
        json.text_if(
            "organization_id",
            self.organization.as_ref().map(|organization| organization.id.as_str()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record each of whose facts says something, made of an event in JSON.
    fn full() -> CallRecord {
        let text = |text: &str| Some(text.to_owned());
        CallRecord {
            id: "c-1".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            call_id: "c".to_owned(),
            request_id: "r".to_owned(),
            response_id: text("chatcmpl-1"),
            call_type: "acompletion".into(),
            asked_model: text("asked"),
            group: text("g*"),
            model: "m".to_owned(),
            model_group: "g".to_owned(),
            model_id: "d".to_owned(),
            provider: "p".into(),
            attempted_model: text("m"),
            api_base: "https://a".to_owned(),
            grant: None,
            api_key: "hash".to_owned(),
            user: text("u"),
            team: text("t"),
            organization: text("o"),
            end_user: text("e"),
            forwarded_for: text("192.0.2.1"),
            ip: text("::1"),
            streaming: true,
            attempts: 2,
            retries: 1,
            fallbacks: 0,
            first_after_ms: Some(2),
            usage: Some(Usage { prompt_tokens: 1, ..Usage::default() }),
            prompt_tokens: 1,
            completion_tokens: u64::MAX,
            total_tokens: 3,
            cache_read_tokens: 4,
            cache_creation_tokens: 5,
            estimated: true,
            incomplete: true,
            cost: Some(Money::from_pico(10_i128.pow(12))),
            spend: i64::MIN,
            mocked: 9,
            start_ms: 6,
            end_ms: 7,
            first_ms: Some(8),
            status: Some(499),
            failure: Some("Timeout".into()),
            failure_message: text("ours"),
            error: text("Timeout"),
            message: text("it took \"too\" long"),
            refused: true,
            tags: vec!["a".to_owned(), "\"b\"".to_owned()],
            session: text("s"),
            budgeted_meters: vec!["key:k".to_owned()],
            meter_charges: vec![MeterCharge {
                meter: "provider:p".to_owned(),
                spend: -1,
                period: text("1d"),
            }],
            is_whole: true,
        }
    }

    /// What the ledger reads of it: all but what it is not told.
    fn told(record: &CallRecord) -> CallRecord {
        let mut event = Vec::new();
        record.write_event(&mut event);
        serde_json::from_slice(&event).unwrap()
    }

    #[test]
    fn the_ledger_reads_what_was_written() {
        let full = full();
        let read = told(&full);
        let expected = CallRecord {
            path: String::new(),
            request_id: String::new(),
            asked_model: None,
            group: None,
            attempted_model: None,
            forwarded_for: None,
            streaming: false,
            attempts: 0,
            retries: 0,
            first_after_ms: None,
            usage: None,
            incomplete: false,
            cost: None,
            failure: None,
            failure_message: None,
            is_whole: false,
            ..full.clone()
        };
        assert_eq!(read, expected);
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&full).unwrap());
        assert_eq!(told(&CallRecord::default()), CallRecord::default());
    }

    #[test]
    fn the_access_log_has_its_members_in_this_order() {
        let mut log = b"{\"method\":\"POST\"".to_vec();
        full().write_log(&mut log);
        log.push(b'}');
        let shown: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&log).unwrap();
        let names: Vec<&str> = shown.keys().map(String::as_str).collect();
        assert_eq!(
            names.join(" "),
            "method path call_id request_id call_type model model_group model_id provider provider_model end_user \
             client_address stream attempts retries fallbacks first_ms prompt_tokens completion_tokens total_tokens \
             cached_tokens estimated incomplete cost error error_message"
        );
        let mut log = b"{".to_vec();
        CallRecord::default().write_log(&mut log);
        assert_eq!(
            String::from_utf8(log).unwrap(),
            r#"{"path":"","call_id":"","request_id":"","call_type":"","stream":false,"attempts":0,"retries":0,"fallbacks":0"#
        );
    }

    #[test]
    fn columns_have_facts_and_long_texts_are_cut() {
        let mut record = full();
        for (column, cell) in [
            ("request_id", Cell::Text(Some("c-1"))),
            ("spend", Cell::Number(Some(i64::MIN))),
            ("completion_tokens", Cell::Number(Some(i64::MAX))),
            ("completion_start_time", Cell::Number(Some(8))),
            ("custom_llm_provider", Cell::Text(Some("p"))),
            ("request_tags", Cell::Texts(&["a".to_owned(), "\"b\"".to_owned()])),
        ] {
            assert_eq!(record.cell(column), Some(cell), "{column}");
        }
        assert_eq!(record.cell("metadata"), None);
        assert_eq!(CallRecord::default().cell("team_id"), Some(Cell::Text(None)));
        assert_eq!(CallRecord::default().cell("completion_start_time"), Some(Cell::Number(None)));

        record.end_user = Some("é".repeat(600));
        record.tags = vec!["x".repeat(400)];
        record.message = Some("y".repeat(2_000));
        record.cut_texts();
        assert_eq!(record.end_user.unwrap().len(), END_USER);
        assert_eq!(record.tags[0].len(), TEXT);
        assert_eq!(record.message.unwrap().len(), MESSAGE);
        assert_eq!(record.call_id, "c");
    }
}
