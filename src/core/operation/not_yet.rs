//! Addresses of LiteLLM's that are not served yet, and what was probably meant by one that does not exist.
//!
//! A plain 404 reads as "wrong URL". Who asks for one of these has the right address and the wrong gateway.

/// What LiteLLM serves: the address (and all below it) without its version, and what it is.
const TABLE: &[(&str, &str)] = &[
    ("/responses", "the responses API"),
    ("/messages/batches", "message batches"),
    ("/rerank", "reranking"),
    ("/images", "the images API"),
    ("/audio", "the audio API"),
    ("/videos", "the videos API"),
    ("/realtime", "the realtime API"),
    ("/moderations", "moderations"),
    ("/files", "the files API"),
    ("/batches", "the batches API"),
    ("/fine_tuning", "fine-tuning"),
    ("/assistants", "assistants"),
    ("/threads", "threads"),
    ("/vector_stores", "vector stores"),
    ("/vector_store", "vector stores"),
    ("/containers", "containers"),
    ("/ocr", "OCR"),
    ("/search", "the search API"),
    ("/rag", "the RAG API"),
    ("/skills", "skills"),
    ("/agents", "agents"),
    ("/a2a", "agents"),
    ("/mcp", "MCP"),
    ("/mcp-rest", "MCP"),
    ("/config", "configuration through the API"),
    ("/get/config", "configuration through the API"),
    ("/credentials", "stored credentials"),
    ("/tag", "tag management"),
    ("/guardrails", "guardrails"),
    ("/prompts", "prompt management"),
    ("/cache", "caching"),
    ("/callbacks", "callbacks"),
    ("/active/callbacks", "callbacks"),
    ("/alerting", "alerting settings"),
    ("/fallback", "fallbacks through the API"),
    ("/invitation", "invitations"),
    ("/health/test_connection", "connection tests"),
    ("/sso", "single sign-on"),
    ("/login", "the admin UI"),
    ("/ui", "the admin UI"),
    ("/scim", "SCIM"),
    ("/project", "projects"),
    ("/access_group", "access groups"),
    ("/audit", "audit logs"),
    ("/openai", "pass-through to OpenAI"),
    ("/azure", "pass-through to Azure"),
    ("/anthropic", "pass-through to Anthropic"),
    ("/bedrock", "pass-through to Bedrock"),
    ("/vertex_ai", "pass-through to Vertex AI"),
    ("/vertex-ai", "pass-through to Vertex AI"),
    ("/gemini", "pass-through to Gemini"),
    ("/cohere", "pass-through to Cohere"),
    ("/mistral", "pass-through to Mistral"),
    ("/vllm", "pass-through to vLLM"),
    ("/assemblyai", "pass-through to AssemblyAI"),
    ("/langfuse", "pass-through to Langfuse"),
    // Below what the management API serves.
    ("/team/available", "teams to join"),
    ("/team/bulk_member_add", "changes in bulk"),
    ("/team/permissions_bulk_update", "changes in bulk"),
    ("/key/bulk_update", "changes in bulk"),
    ("/user/bulk_update", "changes in bulk"),
    ("/user/available_users", "the admin UI"),
    ("/user/filter/ui", "the admin UI"),
    ("/spend/logs/session/ui", "the admin UI"),
    ("/global/all_end_users", "the admin UI"),
    ("/team/daily/activity", "activity by day"),
    ("/organization/daily/activity", "activity by day"),
    ("/customer/daily/activity", "activity by day"),
    ("/end_user/daily/activity", "activity by day"),
    ("/user/daily/activity/aggregated", "activity by day"),
    ("/global/activity/exceptions", "failures by day"),
    ("/global/activity/cache_hits", "caching"),
    ("/health/history", "the history of health checks"),
    ("/health/latest", "the history of health checks"),
    ("/health/test_connection", "a try of a model that is not saved yet"),
    ("/health/license", "LiteLLM's licence"),
    ("/health/shared-status", "health checks that instances share"),
    ("/model/metrics", "metrics of models"),
    ("/model/streaming_metrics", "metrics of models"),
    ("/model/settings", "the admin UI"),
    ("/utils/transform_request", "what a request becomes"),
    ("/utils/dotprompt_json_converter", "prompt management"),
];

/// Google's format, which has a version of its own.
const GOOGLE: &str = "/v1beta";

/// What LiteLLM serves at an address where nothing is served here.
pub fn missing(path: &str) -> Option<&'static str> {
    let below = |path: &str, known: &str| {
        path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if below(path, GOOGLE) {
        return Some("Google's API format");
    }
    let bare = ["/v1", "/v2"].iter().find_map(|version| path.strip_prefix(version));
    let bare = bare.filter(|rest| rest.starts_with('/')).unwrap_or(path);
    TABLE.iter().find(|(known, _)| below(bare, known)).map(|(_, what)| *what)
}

/// Addresses longer than this are not guessed at, in bytes.
const LONGEST_GUESSED: usize = 64;
/// A path that is meant differs in so many letters at most.
const MOST_WRONG: usize = 2;

/// The address that was probably meant: one that differs by a letter or two, or by what stands before it.
pub fn meant<'k>(path: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if path.len() > LONGEST_GUESSED {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in known.filter(|known| known.len() > 4 && !known.contains('{')) {
        let around = path.ends_with(candidate) || (path.len() > 4 && candidate.ends_with(path));
        let wrong = if around { MOST_WRONG } else { distance(path, candidate) };
        // Of short names nearly everything differs by two letters. The longest that fits says most.
        let near = wrong <= MOST_WRONG && wrong.saturating_mul(4) <= candidate.len();
        let better = best.is_none_or(|(least, chosen)| {
            wrong < least || (wrong == least && around && candidate.len() > chosen.len())
        });
        if near && better {
            best = Some((wrong, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters have to be put in, taken out or changed; more than [`MOST_WRONG`] is only known to be that.
fn distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > MOST_WRONG {
        return MOST_WRONG + 1;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.bytes().enumerate() {
        let mut left = at + 1;
        let mut above_left = at;
        let mut cells = row.iter_mut();
        if let Some(first) = cells.next() {
            *first = left;
        }
        for (cell, b) in cells.zip(to.bytes()) {
            let here = (above_left + usize::from(a != b)).min(*cell + 1).min(left + 1);
            above_left = std::mem::replace(cell, here);
            left = here;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_litellm_are_known_with_what_they_are() {
        let rows = [
            ("/v1/responses", Some("the responses API")),
            ("/responses/resp_1/cancel", Some("the responses API")),
            ("/v2/rerank", Some("reranking")),
            ("/v1/messages/batches", Some("message batches")),
            ("/v1/messages/count_tokens", None),
            ("/v1beta/models/gemini-pro:generateContent", Some("Google's API format")),
            ("/anthropic/v1/messages", Some("pass-through to Anthropic")),
            ("/ui", Some("the admin UI")),
            ("/uis", None),
            ("/v1", None),
            ("/v1/nothing", None),
        ];
        for (path, what) in rows {
            assert_eq!(missing(path), what, "{path}");
        }
    }

    #[test]
    fn a_wrong_letter_or_a_wrong_beginning_is_guessed() {
        let known = [
            "/chat/completions",
            "/v1/chat/completions",
            "/v1/messages",
            "/models",
            "/v1/models",
            "/",
            "/key",
        ];
        let rows = [
            ("/chat/completion", Some("/chat/completions")),
            ("/v1/chat/completion", Some("/v1/chat/completions")),
            ("/v1/v1/chat/completions", Some("/v1/chat/completions")),
            ("/api/chat/completions", Some("/chat/completions")),
            ("/messages", Some("/v1/messages")),
            ("/modles", None),
            ("/v1/modles", Some("/v1/models")),
            ("/v1/nothing", None),
            ("/v1", None),
            ("/keys", None),
        ];
        for (path, meant_path) in rows {
            assert_eq!(meant(path, known.into_iter()), meant_path, "{path}");
        }
        assert_eq!(meant(&"/a".repeat(40_000), known.into_iter()), None);
    }

    #[test]
    fn the_readme_names_what_is_not_served_yet() {
        let readme = include_str!("../../../README.md");
        let start = "**Routes of LiteLLM's that are not served yet** answer 404 and say so: ";
        let text =
            readme.split("\n\n").map(|part| part.replace('\n', " ")).find(|part| part.starts_with(start));
        let text = text.expect("the paragraph is there");
        let mut told: Vec<&str> = text[start.len()..].trim().trim_end_matches('.').split(", ").collect();
        let mut known: Vec<&str> = TABLE.iter().map(|(_, what)| *what).collect();
        known.push(missing("/v1beta/models").unwrap());
        for list in [&mut told, &mut known] {
            list.sort_unstable();
            list.dedup();
        }
        assert_eq!(told, known);
        // Of the tables: what has a dash is in ours, what is served is not.
        let rows = readme.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.splitn(3, " | ");
            Some((cells.next()?, cells.next()?))
        });
        let mut seen = 0;
        for (feature, mark) in rows.filter(|(_, mark)| ["✓", "≈", "–"].contains(mark)) {
            let addresses = feature.split('`').skip(1).step_by(2).filter(|word| word.starts_with('/'));
            for address in addresses {
                seen += 1;
                let address = address.trim_end_matches('*').trim_end_matches('/');
                let is_missing = missing(address).is_some();
                assert_eq!(is_missing, mark == "–", "{address}: {feature}");
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
