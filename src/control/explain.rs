//! `tollgate explain`: where a call would go and why, asked of the running gateway or worked out from its configuration.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;

use super::{Failure, checked, client, document};
use crate::core::{
    config::Config,
    quota::Worker,
    random::Random,
    route::{
        explain::{self, Explanation, Question, Refusal},
        trace::{Group, Member},
        world::World,
    },
    store::Memory,
};

/// Flags of `tollgate explain`.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct Flags {
    /// LiteLLM configuration file
    #[arg(long, short, value_name = "FILE", env = "CONFIG_FILE_PATH")]
    pub config: PathBuf,
    /// Model that a client asks for
    #[arg(long, short)]
    pub model: String,
    /// Tags of the call, its key and its team, with commas between them
    #[arg(long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Tokens of its prompt
    #[arg(long, default_value_t = 0)]
    pub tokens: u64,
    /// The call asks for a stream
    #[arg(long)]
    pub stream: bool,
    /// The call has a response_format
    #[arg(long)]
    pub response_format: bool,
    /// Team of the caller
    #[arg(long, value_name = "TEAM_ID")]
    pub team: Option<String>,
    /// Region that the end user must stay in
    #[arg(long)]
    pub region: Option<String>,
    /// Port of the gateway on this machine [default: that of the one that runs, else $PORT, else 4000]
    #[arg(long)]
    pub port: Option<u16>,
    /// State directory of that gateway
    #[arg(long, value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// URL of the gateway, when it is elsewhere
    #[arg(long)]
    pub url: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints where a call would go. A refusal is a failure, too.
pub fn run(flags: Flags) -> Result<(), Failure> {
    let (text, refusal) = answer(flags)?;
    super::print(&text)?;
    match refusal {
        None => Ok(()),
        Some(Refusal { status, .. }) => {
            Err(Failure::running(format!("such a call is refused with {status} (reason above)")))
        }
    }
}

/// What to print, and how the call is refused.
fn answer(flags: Flags) -> Result<(String, Option<Refusal>), Failure> {
    let config = checked::examine(&document::read_file(flags.config)?)?.config;
    let question = Question {
        model: flags.model,
        tags: flags.tags,
        tokens: flags.tokens,
        stream: flags.stream,
        team: flags.team,
        region: flags.region,
        response_format: flags.response_format,
    };
    let base = match &flags.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => client::gateway_url(flags.port, flags.state_dir.as_deref()),
    };
    let (explanation, source) = match ask(&base, &question, &config) {
        Ok(explanation) => (explanation, format!("as the gateway at {base} would route it now")),
        Err(failure) if flags.url.is_some() => return Err(failure),
        Err(_) => (cold(&question, &config), format!("from a cold start: no gateway answers at {base}")),
    };
    let printed = match flags.json {
        true => serde_json::to_string_pretty(&explanation)
            .map_err(|error| Failure::running(format!("cannot print the explanation: {error}")))?,
        false => text(&explanation, &source),
    };
    Ok((printed, explanation.refusal))
}

/// The running gateway's word: it knows who rests, what is in flight and what was used.
fn ask(base: &str, question: &Question, config: &Config) -> Result<Explanation, Failure> {
    let url = format!("{base}/tollgate/explain?{}", question.to_query());
    let key = config.general.master_key.as_ref().map(|key| key.reveal().to_owned());
    let (status, body) = client::get(
        &url,
        key.as_deref(),
        &client::agent(Duration::from_secs(5), !base.starts_with("https://127.0.0.1")),
    )?;
    let explanation = (status == 200).then(|| serde_json::from_str(&body).ok()).flatten();
    explanation.ok_or_else(|| Failure::running(format!("{url} answered {status}: {body}")))
}

/// The same with nothing in flight and nothing used.
fn cold(question: &Question, config: &Config) -> Explanation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut world = World {
        config,
        shared: &Memory::default(),
        now_ms: u64::try_from(now.as_millis()).unwrap_or_default(),
        random: &mut Random::new(u64::from(now.subsec_nanos())),
        worker: Worker(1),
        trace: None,
    };
    explain::explain(question, &mut world)
}

/// The explanation for people.
fn text(explanation: &Explanation, source: &str) -> String {
    let mut text = format!("{} by {}, {source}\n", explanation.model, explanation.strategy);
    for group in &explanation.groups {
        add_group(&mut text, group);
    }
    for (when, names) in [
        ("a prompt that is too long", &explanation.context_window_fallbacks),
        ("what a content policy refuses", &explanation.content_policy_fallbacks),
    ] {
        if !names.is_empty() {
            // Writing to a String cannot fail.
            _ = writeln!(text, "\n{when} goes to {}", names.join(", "));
        }
    }
    _ = match &explanation.refusal {
        Some(refusal) => writeln!(text, "\nrefused with {}: {}", refusal.status, refusal.message.trim_end()),
        None => writeln!(text, "\nat most {} attempts in all", explanation.attempts),
    };
    text
}

fn add_group(text: &mut String, group: &Group) {
    let name = match group.group.is_empty() || group.group == group.name {
        true => group.name.clone(),
        false => format!("{} (group {})", group.name, group.group),
    };
    let what = match group.depth {
        0 => "",
        1 => "fallback ",
        _ => "fallback of a fallback ",
    };
    let attempts = match group.attempts {
        0 => "passed over".to_owned(),
        1 => "1 attempt".to_owned(),
        attempts => format!("up to {attempts} attempts"),
    };
    _ = writeln!(text, "\n{what}{name}: {attempts}");
    // LiteLLM's own ids are hashes.
    let short = |id: &str| match id.char_indices().nth(12).filter(|_| id.len() == 64) {
        Some((end, _)) => format!("{}…", id.get(..end).unwrap_or(id)),
        None => id.to_owned(),
    };
    let ids: Vec<String> = group.deployments.iter().map(|one| short(&one.id)).collect();
    let longest =
        |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let models = longest(&mut group.deployments.iter().map(|one| one.model.as_str()));
    let width = longest(&mut ids.iter().map(String::as_str));
    for (Member { model, place, why, .. }, id) in group.deployments.iter().zip(&ids) {
        let place = place.map_or("-".to_owned(), |place| place.to_string());
        let line = format!("  {place:>2}  {model:models$}  {id:width$}  {}", why.join("; "));
        _ = writeln!(text, "{}", line.trim_end());
    }
    if let Some(refusal) = &group.refusal {
        _ = writeln!(text, "      {}", refusal.trim_end().replace('\n', "\n      "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config;

    const CONFIG: &str = "
model_list:
  - {model_name: g, litellm_params: {model: openai/gpt-4o, api_key: k, weight: 3, tags: [paid]}, model_info: {id: east}}
  - {model_name: g, litellm_params: {model: azure/gpt, api_base: 'https://e', api_key: k, weight: 1, tags: [paid]}, model_info: {id: a-long-id}}
  - {model_name: g, litellm_params: {model: openai/gpt-4o, api_key: k, tags: [free]}, model_info: {id: free}}
  - {model_name: h, litellm_params: {model: openai/o3, api_key: k, tags: [paid]}, model_info: {id: h}}
router_settings: {enable_tag_filtering: true, num_retries: 1, fallbacks: [{g: [h, nothing]}], context_window_fallbacks: [{g: [h]}]}
";

    #[test]
    fn a_cold_start_is_explained_to_people() {
        let config = config::load(CONFIG, &|_| None, &|_| None).unwrap().config;
        let question = Question { model: "g".into(), tags: vec!["paid".into()], ..Question::default() };
        let explanation = cold(&question, &config);
        let mut lines: Vec<String> = text(&explanation, "from here").lines().map(str::to_owned).collect();
        // Which is drawn first is a matter of chance.
        lines[3..5].sort_by_key(|line| line[4..].to_owned());
        let lines: Vec<&str> =
            lines.iter().map(|line| line.trim_start_matches("   1  ").trim_start_matches("   2  ")).collect();
        assert_eq!(
            lines,
            [
                "g by simple-shuffle, from here",
                "",
                "g: up to 2 attempts",
                "azure/gpt      a-long-id  is tried first by 25.0 % of all calls",
                "openai/gpt-4o  east       is tried first by 75.0 % of all calls",
                "   -  openai/gpt-4o  free       is for other tags than the call's: free",
                "",
                "fallback h: up to 2 attempts",
                "openai/o3  h",
                "",
                "fallback nothing: passed over",
                "      {'error': '/chat/completions: Invalid model name passed in model=nothing. Call `/v1/models` to view available models for your key.'}",
                "",
                "a prompt that is too long goes to h",
                "",
                "at most 4 attempts in all",
            ]
        );
    }

    #[test]
    fn a_refusal_is_explained_too() {
        let config = config::load(CONFIG, &|_| None, &|_| None).unwrap().config;
        let question = Question { model: "g".into(), tags: vec!["gold".into()], ..Question::default() };
        let text = text(&cold(&question, &config), "from here");
        assert!(text.contains("\ng: passed over\n"), "{text}");
        assert!(text.contains("\n      Not allowed to access model due to tags configuration"), "{text}");
        assert!(text.contains("\nrefused with 401: Not allowed"), "{text}");
    }
}
