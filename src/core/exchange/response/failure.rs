//! A failed response: classified, noted, and marked for a retry when there is somewhere to go.

use serde_json::Value;

use super::{encoding, headers::copied, state::Response};
use crate::core::{
    error::{Error, Fault, Form, ProviderFault, RequestFault},
    exchange::{Env, Exchange, Next, RETRY_HEADER, Released, WAIT_HEADER, next::Release, served::Completed},
    format::failure,
    headers::Headers,
    model::{
        failure::{Class, Failure, Native, Words},
        secret::Secret,
        status::Status,
    },
    route::{plan::Plan, retries},
};

/// The most that a packed error may become: words, and what some servers put beside them.
const MOST_UNPACKED_ERROR_BYTES: usize = 4 * 1024 * 1024;

impl Exchange {
    /// A failed response has been read.
    pub(super) fn failed(&mut self, body: &[u8], env: &mut Env) -> Next {
        let Some(attempt) = self.attempt_mut() else { return Next::Pass };
        let Response::Failing { status, headers } = std::mem::replace(&mut attempt.response, Response::Over)
        else {
            return Next::Pass;
        };
        if let Some(failure) = self.no_response(status, &headers) {
            self.charge_hurried(&failure, env);
            return self.conclude(failure, &Headers::default(), env);
        }
        let Some(attempt) = self.attempt() else { return Next::Pass };
        let read = |body: &[u8]| failure::read(attempt.format, status, &headers, body, env.now_ms);
        let mut failure = match encoding::unpack_failure(&headers, body, MOST_UNPACKED_ERROR_BYTES) {
            Ok(unpacked) => read(unpacked.as_deref().unwrap_or(body)),
            // Its status still tells what has failed.
            Err(why) => Failure { message: format!("the provider's error {why}"), ..read(b"") },
        };
        // Where no body came there is no place for one.
        if let Some(counted) = self.count_instead(&failure).filter(|_| !body.is_empty()) {
            self.set_response(Response::Over);
            self.books.completed = Some(Completed::of_nothing());
            let list = self.release(&headers, Some(counted.len()), false, env);
            return Next::Release(Release { headers: Some(list), body: Some(counted), ..Release::default() });
        }
        self.hide_key(&mut failure.native);
        self.conclude(failure, &headers, env)
    }

    /// Takes details out that quote the key of the deployment.
    fn hide_key(&self, told: &mut Option<Box<Native>>) {
        let Some(native) = told.as_mut().filter(|native| native.details.is_some()) else { return };
        let deployment = self.plan().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        let key = deployment.and_then(|deployment| deployment.api_key.as_ref()).map(Secret::reveal);
        let quotes =
            |details: &Value| key.is_some_and(|key| !key.is_empty() && details.to_string().contains(key));
        native.details = native.details.take().filter(|details| !quotes(details));
    }

    /// A response that looked fine and is not; with its headers, which may say when to try again.
    pub(super) fn fail_with(&mut self, mut error: Error, headers: &Headers, env: &mut Env) -> Next {
        let retry_after_ms = failure::retry_after(headers, env.now_ms);
        if let Fault::Provider(fault) = &mut error.fault {
            fault.retry_after_ms = fault.retry_after_ms.or(retry_after_ms);
        }
        let class = error.class().unwrap_or(Class::Api);
        let error = self.worded(error);
        let status = match &error.fault {
            Fault::Provider(fault) => fault.status.map(Status::from),
            _ => None,
        };
        self.note_error(error);
        let failure = Failure { status, retry_after_ms, ..Failure::without_answer(class, "") };
        self.conclude(failure, headers, env)
    }

    /// A provider's failure as the client reads it. Translations say themselves whose it is, what comes from a stream's own error
    /// event does not.
    pub(super) fn worded(&self, mut error: Error) -> Error {
        self.hide_key(&mut error.native);
        let class = error.class().unwrap_or(Class::Api);
        let (words, status, retry_after_ms) = match error.fault {
            Fault::Provider(ProviderFault { form: Form::Bare, words, status, retry_after_ms, .. }) => {
                (words, status.map(Status::from), retry_after_ms)
            }
            Fault::Provider(_) | Fault::Request(RequestFault::Foreseen(_)) => return error,
            _ => (Words::Ours, None, None),
        };
        let Error { message, native, .. } = error;
        Failure { class, status, message, words, retry_after_ms, native }.to_error(self.title())
    }

    /// A stream that says for too long only that it will say something.
    pub(super) fn time_out(&mut self, env: &mut Env) -> Next {
        let failure = Failure::without_answer(Class::Timeout, "no answer within the time-out");
        self.charge_hurried(&failure, env);
        self.conclude(failure, &Headers::default(), env)
    }

    /// Notes a failure and asks Envoy for a retry when there is somewhere to go. What is released is bare: if it gets to the
    /// policy role after all, that words it for the client (see [`Exchange::on_release`]).
    fn conclude(&mut self, failure: Failure, headers: &Headers, env: &mut Env) -> Next {
        self.set_response(Response::Over);
        if !failure.message.is_empty() || self.delivery.first_error.is_none() {
            self.note_error(failure.to_error(self.title()));
        }
        self.cool_down(failure.clone(), env);
        self.delivery.failure_headers = copied(headers);
        self.delivery.released = Released::Failure;
        let mut list = Headers::with_capacity(4);
        list.push_number(":status", failure.class.status().get().into());
        list.push("content-length", b"0");
        let (failed, used) = (self.plan().map(Plan::current), self.retries());
        let next = self.advance(failure.class, failure.status, env);
        if let Some(next) = next {
            list.push(RETRY_HEADER, b"1");
            // Whoever has not failed need not be waited for.
            if failed.is_some_and(|failed| failed.is_same_group(next) && failed.deployment == next.deployment)
            {
                let least_ms = self.config.router.retry_after_ms;
                let seconds = retries::wait_seconds(used, failure.retry_after_ms, least_ms);
                list.push_number(WAIT_HEADER, seconds);
            }
        }
        let next_cluster = next.map(|next| self.cluster_of(Some(next)));
        Next::Release(Release { headers: Some(list), body: Some(Vec::new()), next_cluster })
    }

    /// A response that may not be seen. The client is told why by the policy role (see [`Exchange::on_release`]), whatever failed
    /// before; nothing else is tried.
    pub(super) fn block(&mut self, error: Error) -> Next {
        self.set_response(Response::Over);
        let mut list = Headers::with_capacity(2);
        list.push_number(":status", error.status().into());
        list.push("content-length", b"0");
        self.delivery.first_error = Some(error);
        self.delivery.released = Released::Failure;
        Next::Release(Release { headers: Some(list), body: Some(Vec::new()), ..Release::default() })
    }
}
