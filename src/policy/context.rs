//! The context of a call: what policies see beside who, what and where.

use std::net::IpAddr;

use cedar_policy::{Context, RestrictedExpression};

use super::decision::{PolicyError, Question, RequestFacts, RunFacts};
use crate::{call::User, manifest::Label};

/// Builds the context of a tool's action (`arguments` given), or of one of the gate's own.
pub(super) fn context(
    question: &Question<'_>,
    arguments: Option<RestrictedExpression>,
) -> Result<Context, PolicyError> {
    let mut pairs =
        vec![("run".to_owned(), run(question.run)?), ("request".to_owned(), request(question.request)?)];
    if let Some(facts) = question.user {
        pairs.push(("user".to_owned(), user(facts)?));
    }
    if let Some(arguments) = arguments {
        pairs.push(("args".to_owned(), arguments));
    }
    Context::from_pairs(pairs).map_err(|error| PolicyError::Facts { reason: error.to_string() })
}

fn run(facts: &RunFacts) -> Result<RestrictedExpression, PolicyError> {
    // A count that no run reaches keeps its order: it is larger than any a policy can name.
    let calls = i64::try_from(facts.calls).unwrap_or(i64::MAX);
    let labels = facts.labels.iter().map(Label::as_str).map(text);
    record([
        ("labels", RestrictedExpression::new_set(labels)),
        ("calls", RestrictedExpression::new_long(calls)),
    ])
}

fn request(facts: &RequestFacts) -> Result<RestrictedExpression, PolicyError> {
    let time = facts.time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    let source =
        facts.source.map(|source| ("source", RestrictedExpression::new_ip(canonical(source).to_string())));
    let always = [
        ("transport", text(&facts.transport)),
        ("time", RestrictedExpression::new_datetime(time)),
        ("authentication", text(&facts.authentication)),
    ];
    record(always.into_iter().chain(source))
}

/// An IPv4 address that came in over an IPv6 socket is an IPv4 address.
const fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn user(facts: &User) -> Result<RestrictedExpression, PolicyError> {
    record([("issuer", text(&facts.issuer)), ("subject", text(&facts.subject))])
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn record(
    fields: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<RestrictedExpression, PolicyError> {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    RestrictedExpression::new_record(fields).map_err(|error| PolicyError::Facts { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn the_facts_of_a_call_are_in_the_context() {
        let mut facts = fixture::Facts::default();
        facts.request.source = Some("::ffff:10.0.0.1".parse().unwrap());
        facts.user = Some(User { issuer: "https://id.example".to_owned(), subject: "lee\"\n".to_owned() });
        insta::assert_snapshot!(context(&facts.question(), None).unwrap(), @r#"{request: {authentication: "api-key", source: ip("10.0.0.1"), time: datetime("2026-11-23T10:20:30.456Z"), transport: "http"}, run: {calls: 7, labels: ["seen"]}, user: {issuer: "https://id.example", subject: "lee\"\n"}}"#);
    }

    #[test]
    fn what_is_not_known_is_not_in_the_context() {
        insta::assert_snapshot!(context(&fixture::Facts::default().question(), None).unwrap(), @r#"{request: {authentication: "api-key", time: datetime("2026-11-23T10:20:30.456Z"), transport: "http"}, run: {calls: 7, labels: ["seen"]}}"#);
    }

    #[test]
    fn a_time_that_cedar_cannot_hold_is_an_error() {
        let mut facts = fixture::Facts::default();
        facts.request.time = "-000001-01-01T00:00:00Z".parse().unwrap();
        insta::assert_snapshot!(context(&facts.question(), None).unwrap_err(), @"policies cannot read the facts of the call: error while evaluating `datetime` extension function: invalid date pattern");
    }
}
