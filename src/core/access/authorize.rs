//! Whether a caller may make one request: everything that is known once its body is read, in LiteLLM's order.
//!
//! Budgets stand between these checks in that order and are kept elsewhere, so a refusal says at which [`CheckStep`] it came: a
//! budget that is checked earlier and is used up has the first word.

use super::{
    Caller,
    models::{NO_DEFAULT, Names},
    refusals,
};
use crate::core::{
    config::Config,
    error::{Error, ModelOwner},
    model::{key_record::Role, meter::MeterKind, virtual_key::EndUser},
};

/// LiteLLM's order of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckStep {
    /// Is the end user blocked, is its budget used up.
    EndUser,
    /// May the key call the model, and every fallback the request names.
    KeyModels,
    /// Budget of the team's member.
    MemberBudget,
    /// Budget of the key.
    KeyBudget,
    /// Budget of the key for the model.
    KeyModelBudget,
    /// Is the team blocked.
    TeamBlocked,
    /// May the team call the models.
    TeamModels,
    /// May the user (of a key without a team).
    UserModels,
    /// May the organization.
    OrganizationModels,
    /// Budget of the team.
    TeamBudget,
    /// Budget of the user.
    UserBudget,
    /// Budget of the organization.
    OrganizationBudget,
    /// Does the request name its end user, if it must.
    NamedUser,
    /// Budget of the whole gateway.
    GlobalBudget,
    /// Does it have the members it must have.
    Params,
}

impl CheckStep {
    /// When the budget of a kind of meter is checked.
    pub fn of_budget(kind: MeterKind) -> CheckStep {
        match kind {
            MeterKind::EndUser | MeterKind::EndUserModel => CheckStep::EndUser,
            MeterKind::Member | MeterKind::MemberModel => CheckStep::MemberBudget,
            MeterKind::Key | MeterKind::KeyWindow => CheckStep::KeyBudget,
            MeterKind::KeyModel => CheckStep::KeyModelBudget,
            MeterKind::Team | MeterKind::TeamModel | MeterKind::TeamWindow => CheckStep::TeamBudget,
            MeterKind::User | MeterKind::UserModel | MeterKind::UserWindow => CheckStep::UserBudget,
            MeterKind::Organization | MeterKind::OrganizationMember | MeterKind::OrganizationModel => {
                CheckStep::OrganizationBudget
            }
            MeterKind::Global | MeterKind::Deployment | MeterKind::Provider => CheckStep::GlobalBudget,
        }
    }
}

/// A refusal and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Denied {
    /// When.
    pub step: CheckStep,
    /// What the client reads.
    pub error: Error,
}

/// What is to be judged.
pub struct AuthorizeRequest<'c> {
    /// The model asked for. Several with commas between them are judged one by one.
    pub model: &'c str,
    /// Models that the request names as fallbacks.
    pub fallbacks: Vec<&'c str>,
    /// The end user's record, when it was looked up.
    pub end_user: Option<&'c EndUser>,
    /// The request names an end user.
    pub names_user: bool,
    /// Whether the request has a member, by its path (`metadata.trace`).
    pub has_param: &'c dyn Fn(&str) -> bool,
}

/// Judges a request of a caller. The master key may do everything, but not for an end user that is blocked.
pub fn authorize(caller: &Caller, request: &AuthorizeRequest<'_>, config: &Config) -> Result<(), Denied> {
    let denied = |step, error| Err(Denied { step, error });
    if let Some(end_user) = request.end_user.filter(|end_user| end_user.scope.blocked) {
        return denied(CheckStep::EndUser, refusals::blocked_end_user(end_user));
    }
    let Some(grant) = caller.grant() else { return Ok(()) };
    let general = &config.general;
    let models: Vec<Names<'_>> = request
        .model
        .split(',')
        .map(str::trim)
        .chain(request.fallbacks.iter().copied())
        .map(|name| Names::of(name, Some(grant)))
        .collect();
    if let Some(names) = models.iter().find(|names| !names.allowed_for_key(&grant.key, config)) {
        return denied(
            CheckStep::KeyModels,
            refusals::model(ModelOwner::Key, &grant.key.models, names.asked),
        );
    }
    if let Some(team) = &grant.team {
        if team.blocked {
            return denied(CheckStep::TeamBlocked, refusals::blocked_team(team));
        }
        if let Some(names) = models.iter().find(|names| !names.allowed_for_owner(team, config)) {
            return denied(
                CheckStep::TeamModels,
                refusals::model(ModelOwner::Team, &team.models, names.asked),
            );
        }
    }
    if let Some(user) = &grant.user {
        if user.blocked {
            return denied(CheckStep::UserModels, refusals::blocked_owner("User", user));
        }
        let refused = models.iter().find(|names| !names.allowed_for_owner(user, config));
        if let (Some(names), None) = (refused, &grant.team) {
            let error = match user.models.iter().any(|model| model == NO_DEFAULT) {
                true => refusals::no_default_models(names.asked),
                false => refusals::model(ModelOwner::User, &user.models, names.asked),
            };
            return denied(CheckStep::UserModels, error);
        }
    }
    if let Some(organization) = &grant.organization {
        if organization.blocked {
            return denied(
                CheckStep::OrganizationModels,
                refusals::blocked_owner("Organization", organization),
            );
        }
        if let Some(names) = models.iter().find(|names| !names.allowed_for_owner(organization, config)) {
            let error = refusals::model(ModelOwner::Organization, &organization.models, names.asked);
            return denied(CheckStep::OrganizationModels, error);
        }
    }
    if general.enforce_user && !request.names_user {
        return denied(CheckStep::NamedUser, refusals::no_user());
    }
    let is_admin = grant.role == Role::ProxyAdmin;
    let mut enforced = general.enforced_params.iter().filter(|_| !is_admin).chain(&grant.enforced_params);
    match enforced.find(|name| !(request.has_param)(name)) {
        Some(name) => denied(CheckStep::Params, refusals::no_param(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        config,
        model::key_record::{EndUserRecord, KeyRecord, Principal},
    };

    fn gateway(general: &str) -> Config {
        let yaml = format!(
            "model_list:\n  - {{model_name: a, litellm_params: {{model: openai/a, api_key: k}}}}\n  \
             - {{model_name: b, litellm_params: {{model: openai/b, api_key: k}}}}\ngeneral_settings: {{{general}}}\n"
        );
        config::load(&yaml, &|_| None, &|_| None).unwrap().config
    }

    fn scope(id: &str, models: &[&str]) -> Option<Box<Principal>> {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        Some(Box::new(Principal { id: id.to_owned(), models, ..Principal::default() }))
    }

    fn blocked(id: &str) -> Option<Box<Principal>> {
        Some(Box::new(Principal { id: id.to_owned(), blocked: true, ..Principal::default() }))
    }

    type Change = fn(&mut KeyRecord);
    /// General settings, the key, the model, fallbacks, and the refusal: step, status, type, text.
    type Row = (
        &'static str,
        Change,
        &'static str,
        &'static [&'static str],
        Option<(CheckStep, u16, &'static str, &'static str)>,
    );

    const ROWS: &[Row] = &[
        ("", |_| {}, "b", &[], None),
        ("", |grant| grant.key.models = vec!["a".into()], "a", &[], None),
        (
            "",
            |grant| grant.key.models = vec!["a".into()],
            "b",
            &[],
            Some((
                CheckStep::KeyModels,
                401,
                "key_model_access_denied",
                "key not allowed to access model. This key can only access models=['a']. Tried to access b",
            )),
        ),
        (
            "",
            |grant| grant.key.models = vec!["a".into()],
            "a",
            &["a", "b"],
            Some((
                CheckStep::KeyModels,
                401,
                "key_model_access_denied",
                "key not allowed to access model. This key can only access models=['a']. Tried to access b",
            )),
        ),
        (
            "",
            |grant| grant.key.models = vec!["a".into()],
            "a, b",
            &[],
            Some((
                CheckStep::KeyModels,
                401,
                "key_model_access_denied",
                "key not allowed to access model. This key can only access models=['a']. Tried to access b",
            )),
        ),
        (
            "",
            |grant| grant.team = blocked("t"),
            "a",
            &[],
            Some((
                CheckStep::TeamBlocked,
                401,
                "auth_error",
                "Authentication Error, Team=t is blocked. Update via `/team/unblock` if your admin.",
            )),
        ),
        (
            "",
            |grant| grant.team = scope("t", &["b"]),
            "a",
            &[],
            Some((
                CheckStep::TeamModels,
                401,
                "team_model_access_denied",
                "team not allowed to access model. This team can only access models=['b']. Tried to access a",
            )),
        ),
        (
            "",
            |grant| grant.user = scope("u", &["b"]),
            "a",
            &[],
            Some((
                CheckStep::UserModels,
                401,
                "user_model_access_denied",
                "user not allowed to access model. This user can only access models=['b']. Tried to access a",
            )),
        ),
        // With a team the user's own list says nothing.
        (
            "",
            |grant| {
                grant.user = scope("u", &["b"]);
                grant.team = scope("t", &[]);
            },
            "a",
            &[],
            None,
        ),
        (
            "",
            |grant| grant.user = scope("u", &["no-default-models"]),
            "a",
            &[],
            Some((
                CheckStep::UserModels,
                401,
                "key_model_access_denied",
                "User not allowed to access model. No default model access, only team models allowed. Tried to access a",
            )),
        ),
        (
            "",
            |grant| grant.organization = scope("o", &["b"]),
            "a",
            &[],
            Some((
                CheckStep::OrganizationModels,
                401,
                "org_model_access_denied",
                "org not allowed to access model. This org can only access models=['b']. Tried to access a",
            )),
        ),
        (
            "enforce_user_param: true",
            |_| {},
            "a",
            &[],
            Some((
                CheckStep::NamedUser,
                401,
                "auth_error",
                "Authentication Error, 'user' param not passed in. 'enforce_user_param'=True",
            )),
        ),
        (
            "enforced_params: [user, metadata.trace]",
            |_| {},
            "a",
            &[],
            Some((
                CheckStep::Params,
                400,
                "invalid_request_error",
                "BadRequest please pass param=metadata.trace in request body. This is a required param",
            )),
        ),
        (
            "",
            |grant| grant.enforced_params = vec!["x".into()],
            "a",
            &[],
            Some((
                CheckStep::Params,
                400,
                "invalid_request_error",
                "BadRequest please pass param=x in request body. This is a required param",
            )),
        ),
    ];

    #[test]
    fn rejections_are_litellms() {
        for (general, change, model, fallbacks, expected) in ROWS {
            let config = gateway(general);
            let mut grant = KeyRecord::default();
            change(&mut grant);
            let request = AuthorizeRequest {
                model,
                fallbacks: fallbacks.to_vec(),
                end_user: None,
                names_user: false,
                has_param: &|name| name == "user",
            };
            let got = authorize(&Caller::Key(grant.clone().into()), &request, &config).err();
            let got = got.as_ref().map(|denied| {
                let error = &denied.error;
                (denied.step, error.status(), error.shape().kind.unwrap_or_default(), error.message.as_str())
            });
            assert_eq!(got, *expected, "{general} {model}");
            assert_eq!(
                authorize(&Caller::Master, &request, &config),
                Ok(()),
                "the master key may do everything"
            );
        }
    }

    #[test]
    fn a_blocked_end_user_comes_first() {
        let config = gateway("");
        let mut grant = KeyRecord::default();
        grant.key.models = vec!["b".into()];
        let scope = Principal { id: "e".to_owned(), blocked: true, ..Principal::default() };
        let end_user = EndUserRecord { scope, ..EndUserRecord::default() }.into();
        let request = AuthorizeRequest {
            model: "a",
            fallbacks: Vec::new(),
            end_user: Some(&end_user),
            names_user: true,
            has_param: &|_| true,
        };
        let denied = authorize(&Caller::Key(grant.into()), &request, &config).unwrap_err();
        assert_eq!((denied.step, denied.error.status()), (CheckStep::EndUser, 401));
        assert!(denied.error.message.contains("End User=e is blocked"));
    }
}
