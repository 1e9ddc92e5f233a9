//! Questions to the caller: in the older era as requests in the middle of the call, in the newer one as
//! results that say what is missing, upon which the caller calls again.

use rmcp::{
    ErrorData, RoleServer,
    model::{
        ClientCapabilities, CreateMessageResult, ElicitResult, InputRequest, InputRequests,
        InputRequiredResult, InputResponses, JsonObject, ListRootsResult, ProtocolVersion, ServerRequest,
    },
    service::RequestContext,
};
use serde_json::Value;

use crate::{
    fixtures::{Interview, fill_text},
    seal::{Notes, Seal},
};

/// Where an interview is after a call.
pub(crate) enum Standing {
    /// Everything is answered: this is the answer of the tool.
    Done(String),
    /// The caller has to answer first.
    Asks(InputRequiredResult),
}

/// One call's part of an interview.
pub(crate) struct Talk<'a> {
    pub(crate) interview: &'a Interview,
    pub(crate) seal: &'a Seal,
    pub(crate) asker: &'a str,
    pub(crate) arguments: &'a JsonObject,
    pub(crate) context: &'a RequestContext<RoleServer>,
}

impl Talk<'_> {
    /// Goes on with what the caller sent.
    pub(crate) async fn go_on(
        &self,
        responses: Option<InputResponses>,
        state: Option<String>,
    ) -> Result<Standing, ErrorData> {
        if is_older(self.context) { self.ask_now().await } else { self.ask_back(responses, state) }
    }

    async fn ask_now(&self) -> Result<Standing, ErrorData> {
        let mut answers = InputResponses::new();
        for round in 0..self.interview.rounds() {
            for (key, question) in self.questions(round)? {
                let reply = self.context.peer.send_request(as_request(question)).await;
                let reply = reply.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                let reply = serde_json::to_value(reply);
                answers
                    .insert(key, reply.map_err(|error| ErrorData::internal_error(error.to_string(), None))?);
            }
        }
        Ok(self.done(&answers))
    }

    fn ask_back(
        &self,
        responses: Option<InputResponses>,
        state: Option<String>,
    ) -> Result<Standing, ErrorData> {
        let known = state.is_some() || !self.interview.sealed;
        let mut notes = match state {
            Some(state) => self.seal.open(self.asker, &state)?,
            None => Notes { asker: self.asker.to_owned(), ..Notes::default() },
        };
        let asked = self.questions(notes.round)?;
        if known && let Some(found) = responses.and_then(|responses| replies(&asked, &responses)) {
            notes.answers.extend(found);
            notes.round += 1;
            if notes.round == self.interview.rounds() {
                return Ok(self.done(&notes.answers));
            }
        }
        let state = if self.interview.sealed { Some(self.seal.close(&notes)?) } else { None };
        Ok(Standing::Asks(InputRequiredResult::new(Some(self.questions(notes.round)?), state)))
    }

    /// The questions of a round that this caller can answer. One that it cannot is an error, unless it may be
    /// left out and others stay.
    fn questions(&self, round: usize) -> Result<InputRequests, ErrorData> {
        let mut questions = self.interview.questions(round, self.arguments)?;
        let offered = self.context.client_capabilities().unwrap_or_default();
        let needed = questions.values().find(|question| !can_answer(&offered, question)).map(capability);
        if let Some(needed) = needed {
            questions.retain(|_, question| self.interview.optional && can_answer(&offered, question));
            if questions.is_empty() {
                return Err(ErrorData::missing_required_client_capability(needed));
            }
        }
        Ok(questions)
    }

    fn done(&self, answers: &InputResponses) -> Standing {
        Standing::Done(conclusion(self.interview, self.arguments, answers))
    }
}

/// What a finished interview says: its own words, and all answers.
pub(crate) fn conclusion(interview: &Interview, arguments: &JsonObject, answers: &InputResponses) -> String {
    let answers: JsonObject = answers.clone().into_iter().collect();
    format!("{}: {}", fill_text(&interview.done, arguments), Value::Object(answers))
}

/// Whether a request is of the era in which servers could send requests of their own.
pub(crate) fn is_older(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_none_or(|version| version.as_str() < ProtocolVersion::V_2026_07_28.as_str())
}

/// The reply to each question, if there is one of the right kind to each. Others are passed over.
fn replies(asked: &InputRequests, responses: &InputResponses) -> Option<InputResponses> {
    let reply = |(key, question): (&String, &InputRequest)| {
        let reply = responses.get(key)?;
        is_reply(question, reply).then(|| (key.clone(), reply.clone()))
    };
    asked.iter().map(reply).collect()
}

fn is_reply(question: &InputRequest, reply: &Value) -> bool {
    let reply = reply.clone();
    match question {
        InputRequest::CreateMessage(_) => serde_json::from_value::<CreateMessageResult>(reply).is_ok(),
        InputRequest::Elicitation(_) => serde_json::from_value::<ElicitResult>(reply).is_ok(),
        InputRequest::ListRoots(_) => serde_json::from_value::<ListRootsResult>(reply).is_ok(),
        _ => false,
    }
}

fn can_answer(offered: &ClientCapabilities, question: &InputRequest) -> bool {
    match question {
        InputRequest::CreateMessage(_) => offered.sampling.is_some(),
        InputRequest::Elicitation(_) => offered.elicitation.is_some(),
        InputRequest::ListRoots(_) => offered.roots.is_some(),
        _ => false,
    }
}

fn capability(question: &InputRequest) -> ClientCapabilities {
    match question {
        InputRequest::CreateMessage(_) => ClientCapabilities::builder().enable_sampling().build(),
        InputRequest::ListRoots(_) => ClientCapabilities::builder().enable_roots().build(),
        _ => ClientCapabilities::builder().enable_elicitation().build(),
    }
}

fn as_request(question: InputRequest) -> ServerRequest {
    match question {
        InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
        InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
        InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
        _ => ServerRequest::PingRequest(Default::default()),
    }
}
