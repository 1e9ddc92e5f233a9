//! `Executed → Released`: may this answer leave, and which parts of it?
//!
//! Fields that the output schema does not name are dropped, the rest is
//! validated, fields whose label policy does not release are removed, and what
//! is left is validated again. An answer that then still holds a secret of the
//! gate's own is withheld. What the run has now seen is handed on as labels.

mod blocks;
mod shape;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
    sync::Arc,
};

use serde_json::{Map, Value, json};

use crate::{
    backend::{Body, CompletionResult, Executed, PromptResult, Questions, ToolResult},
    call::{Facts, Outcome, Passed, PolicyFact, Refusal, Stage},
    credential::LiveSecrets,
    hygiene::{Findings, Hidden, clean_value, inspect_value},
    manifest::{ClientName, Label, TextRule, ToolName, Yields},
    policy::{CallFacts, Policies, PolicyError, Question},
    schema::{CompiledSchema, Lane, Mismatch, Unchecked},
};

use blocks::BadBlock;

pub use shape::Shape;

/// The label of a run that has seen what strangers wrote.
pub const UNTRUSTED: &str = "untrusted";

/// An answer, as far as it may leave.
#[derive(Debug)]
pub struct Released {
    executed: Executed,
    content: Content,
    labels: BTreeSet<Label>,
    removed: Vec<Removal>,
    dropped: usize,
    hidden: Findings,
}

/// What leaves.
#[derive(Debug)]
pub enum Content {
    /// An answer that its schema describes.
    Structured(Value),
    /// An answer without a schema, which its manifest lets out on purpose.
    Unchecked(Value),
    /// The result of a tool of another MCP server (`content`, `structuredContent`, `isError`), which its
    /// manifest lets out without a schema.
    Result(Value),
    /// The contents of a resource: a list.
    Contents(Value),
    /// The messages of a prompt: a list. What it is for is told by its manifest.
    Messages(Value),
    /// What an argument could be: a list of texts.
    Completion {
        /// The texts.
        values: Value,
        /// How many there are in all.
        total: Option<u64>,
        /// Whether there are more.
        has_more: Option<bool>,
    },
    /// Nothing but that it was done.
    Done,
    /// What the server behind the gate asks the caller before it goes on: there is no answer yet.
    Questions {
        /// The questions, by key.
        requests: Value,
        /// What the server wants to see again.
        state: Option<String>,
    },
}

impl Content {
    /// The value that leaves.
    #[must_use]
    pub const fn value(&self) -> &Value {
        match self {
            Self::Structured(value)
            | Self::Unchecked(value)
            | Self::Result(value)
            | Self::Contents(value)
            | Self::Messages(value) => value,
            Self::Questions { requests, .. } => requests,
            Self::Completion { values, .. } => values,
            Self::Done => &Value::Null,
        }
    }
}

/// Fields that were removed, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removal {
    /// Their label.
    pub label: Label,
    /// The policies that keep them back; none where no policy releases them.
    pub policies: Vec<PolicyFact>,
}

impl Released {
    /// What leaves.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// The labels that the run carries from now on.
    #[must_use]
    pub const fn labels(&self) -> &BTreeSet<Label> {
        &self.labels
    }

    /// What leaves, and what was removed.
    #[must_use]
    pub fn into_parts(self) -> (Content, Vec<Removal>) {
        (self.content, self.removed)
    }

    /// What was removed.
    #[must_use]
    pub fn removed(&self) -> &[Removal] {
        &self.removed
    }
}

impl Released {
    /// Holds an answer against its schema, and its fields against policy.
    async fn check(
        &mut self,
        checked: &Checked,
        policies: &Policies,
        mut answer: Value,
        lane: &Lane,
    ) -> Result<Content, OutputError> {
        self.dropped = checked.shape.prune(&mut answer);
        let client = self.executed.caller().client().name();
        let (mut answer, mismatch) = lane.check(client, &checked.schema, answer, |answer| answer).await?;
        if let Some(Mismatch { on_record: at, rule, .. }) = mismatch {
            return Err(OutputError::Mismatch { at, rule });
        }
        let facts = CallFacts::of(&self.executed);
        let present = checked.shape.labels(&answer);
        let (released, removed) = ask(policies, &facts.question(), present)?;
        self.labels.extend(released);
        if !removed.is_empty() {
            answer = remove(checked, answer, &removed, lane, client).await?;
        }
        self.removed = removed;
        Ok(Content::Structured(answer))
    }

    /// Puts what its caller is to bring back in the place of what the server wants to see again.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn seal<E>(
        &mut self,
        seal: impl FnOnce(&Self, Option<String>) -> Result<String, E>,
    ) -> Result<(), E> {
        let Content::Questions { state, .. } = &mut self.content else { return Ok(()) };
        let state = state.take();
        let sealed = seal(self, state)?;
        if let Content::Questions { state, .. } = &mut self.content {
            *state = Some(sealed);
        }
        Ok(())
    }
}

impl Deref for Released {
    type Target = Executed;
    fn deref(&self) -> &Executed {
        &self.executed
    }
}

impl Passed for Released {
    const STAGE: Stage = Stage::Output;
    fn describe(&self, facts: &mut Facts) {
        facts.labels = self.labels.iter().map(ToString::to_string).collect();
        facts.removed = self.removed.iter().map(|removal| removal.label.to_string()).collect();
        facts.dropped = self.dropped;
        facts.hidden.answer = self.hidden;
    }
}

/// Why an answer is withheld.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The answer does not fit its schema.
    #[error("the answer does not fit its schema at `{at}`, rule `{rule}`")]
    Mismatch {
        /// The JSON pointer of the value, as it may stand on record.
        at: String,
        /// The keyword that failed.
        rule: String,
    },
    /// Without its forbidden fields, the answer no longer fits.
    #[error(
        "without the fields labelled {labels}, the answer does not fit its schema at `{at}`, rule `{rule}`"
    )]
    Hollow {
        /// The labels that were removed.
        labels: String,
        /// The JSON pointer of the value, as it may stand on record.
        at: String,
        /// The keyword that failed.
        rule: String,
    },
    /// Whether the answer fits could not be found out.
    #[error("the answer was not validated: {0}")]
    Unchecked(#[from] Unchecked),
    /// The whole answer carries a label that policy does not release.
    #[error("the whole answer is labelled `{label}`, which policy does not release")]
    Forbidden {
        /// The label.
        label: Label,
    },
    /// Policy could not be asked.
    #[error("release of `{label}` could not be decided: {source}")]
    Policy {
        /// The label.
        label: Label,
        /// Why.
        source: PolicyError,
    },
    /// The answer holds characters that no reader sees.
    #[error("{}", hidden.on_record(|at| place_on_record(schema.as_deref(), at)))]
    Hidden {
        /// What, and where.
        hidden: Hidden,
        /// The tool's schema, which says what of the place may stand on record.
        schema: Option<Arc<CompiledSchema>>,
    },
    /// The answer holds a secret of the gate's own.
    #[error("the answer holds the secret of `{credential}`")]
    Secret {
        /// Whose secret it is.
        credential: String,
    },
    /// The answer of another MCP server has a content block that does not leave.
    #[error("the content block at `{at}` breaks the rule `{rule}`")]
    Block {
        /// The JSON pointer below `content`.
        at: String,
        /// The rule.
        rule: &'static str,
    },
    /// The tool has no output rules: it is not of this release.
    #[error("tool `{tool}` has no output rules")]
    NoRules {
        /// The tool.
        tool: ToolName,
    },
}

impl Refusal for OutputError {
    fn stage(&self) -> Stage {
        Stage::Output
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "output_schema",
            Self::Hollow { .. } => "output_schema_after_removal",
            Self::Unchecked(Unchecked::TooCostly) => "output_too_costly",
            Self::Unchecked(Unchecked::Busy) => "output_busy",
            Self::Unchecked(Unchecked::Share { .. }) => "output_share",
            Self::Unchecked(Unchecked::Broken) => "output_broken",
            Self::Forbidden { .. } => "label_forbidden",
            Self::Policy { .. } => "release_undecided",
            Self::Hidden { hidden, .. } => hidden.code(),
            Self::Secret { .. } => "secret_in_answer",
            Self::Block { .. } => "content_block",
            Self::NoRules { .. } => "no_output_rules",
        }
    }
    fn public_message(&self) -> String {
        format!("answer withheld (rule `{}`)", self.code())
    }
    fn outcome(&self) -> Outcome {
        Outcome::Withheld
    }
}

/// What may leave, per tool of a release.
#[derive(Debug)]
pub struct OutputRules {
    tools: HashMap<ToolName, OutputRule>,
    secrets: LiveSecrets,
}

/// What may leave of one tool's answers.
#[derive(Debug)]
pub struct OutputRule {
    /// The schema and its shape, unless the manifest lets answers out unchecked.
    pub checked: Option<Checked>,
}

/// An output schema, compiled.
#[derive(Debug)]
pub struct Checked {
    /// The schema as its developer wrote it.
    pub schema: Arc<CompiledSchema>,
    /// The schema as clients see it, which requires no labelled field.
    pub published: Arc<CompiledSchema>,
    /// Which fields it names, and their labels.
    pub shape: Shape,
}

impl OutputRules {
    /// No rules yet, and the secrets that never leave.
    #[must_use]
    pub fn new(secrets: LiveSecrets) -> Self {
        Self { tools: HashMap::new(), secrets }
    }

    /// Adds the rule of a tool.
    pub fn insert(&mut self, tool: ToolName, rule: OutputRule) {
        self.tools.insert(tool, rule);
    }

    /// Releases what may leave of an answer.
    ///
    /// # Errors
    /// When nothing may.
    pub async fn release(
        &self,
        policies: &Policies,
        mut executed: Executed,
        lane: &Lane,
    ) -> Result<Released, OutputError> {
        let name = executed.tool().name();
        let rule = self.tools.get(name).ok_or_else(|| OutputError::NoRules { tool: name.clone() })?;
        let mut labels = BTreeSet::new();
        let (mut answer, form) = match executed.take_body() {
            Body::Json(answer) => (answer, Form::Json),
            Body::Tool(ToolResult { content, structured, is_error }) => match (structured, &rule.checked) {
                // What the schema describes is what leaves; the blocks would only repeat it.
                (Some(structured), Some(_)) if !is_error => (structured, Form::Json),
                (structured, _) => (result(content, structured, is_error), Form::Result { is_error }),
            },
            Body::Questions(Questions { requests, state }) => {
                (Value::Object(requests), Form::Questions { state })
            }
            Body::Contents(contents) => (Value::Array(contents), Form::Contents),
            // A description that differs from the one that was reviewed has no place beside it.
            Body::Prompt(PromptResult { messages, .. }) => (Value::Array(messages), Form::Messages),
            Body::Completion(CompletionResult { values, total, has_more }) => {
                (Value::Array(values), Form::Completion { total, has_more })
            }
            Body::Done => (Value::Null, Form::Done),
        };
        // What was only done has said nothing.
        if executed.tool().manifest().yields == Yields::Untrusted && !matches!(form, Form::Done) {
            labels.extend(Label::parse(UNTRUSTED));
        }
        let hidden = reveal(executed.tool().manifest().text.answers, &mut answer).map_err(|hidden| {
            let schema = rule.checked.as_ref().map(|checked| Arc::clone(&checked.schema));
            OutputError::Hidden { hidden, schema }
        })?;
        let mut released = Released {
            executed,
            content: Content::Unchecked(Value::Null),
            labels,
            removed: Vec::new(),
            dropped: 0,
            hidden,
        };
        let content = match form {
            Form::Json => match &rule.checked {
                Some(checked) => released.check(checked, policies, answer, lane).await?,
                None => Content::Unchecked(answer),
            },
            Form::Result { is_error } => {
                released.dropped = bare(&mut answer, is_error, rule.checked.as_ref())?;
                Content::Result(answer)
            }
            Form::Contents => {
                released.dropped = of_list(&mut answer, blocks::prune_contents)?;
                Content::Contents(answer)
            }
            Form::Messages => {
                released.dropped = of_list(&mut answer, blocks::prune_messages)?;
                Content::Messages(answer)
            }
            Form::Completion { total, has_more } => {
                let values = answer.as_array().map(Vec::as_slice).unwrap_or_default();
                blocks::judge_values(values)
                    .map_err(|BadBlock { at, rule }| OutputError::Block { at, rule })?;
                Content::Completion { values: answer, total, has_more }
            }
            Form::Done => Content::Done,
            Form::Questions { state } => Content::Questions { requests: answer, state },
        };
        self.keep_secrets(content.value())?;
        released.content = content;
        Ok(released)
    }

    /// Searches the answer as it would be sent: names, texts and numbers in one.
    fn keep_secrets(&self, answer: &Value) -> Result<(), OutputError> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        // Twice as fast as `to_string`, and no more able to fail.
        let text = serde_json::to_vec(answer).unwrap_or_else(|_| answer.to_string().into_bytes());
        match self.secrets.find(&text) {
            Some(found) => Err(OutputError::Secret { credential: found.name }),
            None => Ok(()),
        }
    }
}

/// What kind of answer is looked at.
enum Form {
    /// A value, which a schema may describe.
    Json,
    /// The result of another MCP server's tool, in blocks.
    Result { is_error: bool },
    /// The contents of a resource.
    Contents,
    /// The messages of a prompt.
    Messages,
    /// What an argument could be.
    Completion { total: Option<u64>, has_more: Option<bool> },
    /// Nothing.
    Done,
    /// Questions to the caller.
    Questions { state: Option<String> },
}

/// What a tool whose answers carry labels says where it fails: its own words might hold what is labelled.
const FAILED: &str = "the tool reported an error";

/// The result of another MCP server's tool, as it goes on.
fn result(content: Vec<Value>, structured: Option<Value>, is_error: bool) -> Value {
    let mut result = Map::new();
    result.insert("content".into(), Value::Array(content));
    result.extend(structured.map(|structured| ("structuredContent".to_owned(), structured)));
    if is_error {
        result.insert("isError".into(), Value::Bool(true));
    }
    Value::Object(result)
}

/// Keeps of a result in blocks what may leave, and says how many members were dropped. A tool with a schema
/// answers by it, or with an error.
fn bare(answer: &mut Value, is_error: bool, checked: Option<&Checked>) -> Result<usize, OutputError> {
    if let Some(checked) = checked {
        if !is_error {
            return Err(OutputError::Mismatch { at: "/structuredContent".into(), rule: "required".into() });
        }
        if checked.shape.is_labelled() {
            *answer = result(vec![json!({ "type": "text", "text": FAILED })], None, true);
            return Ok(1);
        }
        // What an error says by the side is described by nobody.
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("structuredContent");
        }
    }
    let Some(Value::Array(blocks)) = answer.get_mut("content") else { return Ok(0) };
    blocks::prune(blocks).map_err(|BadBlock { at, rule }| OutputError::Block { at, rule })
}

/// Keeps of the members of a list what may leave.
fn of_list(
    answer: &mut Value,
    prune: fn(&mut [Value]) -> Result<usize, BadBlock>,
) -> Result<usize, OutputError> {
    let list = answer.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    prune(list).map_err(|BadBlock { at, rule }| OutputError::Block { at, rule })
}

/// Removes the characters that no reader sees, before anything is decided by what the answer says.
fn reveal(rule: TextRule, answer: &mut Value) -> Result<Findings, Hidden> {
    match rule {
        TextRule::Remove => Ok(clean_value(answer)?),
        TextRule::Refuse => match inspect_value(answer) {
            Some((at, findings)) => Err(Hidden::Found { at, findings }),
            None => Ok(Findings::default()),
        },
    }
}

/// Without a schema nobody says which names are not the answer's own text.
fn place_on_record(schema: Option<&CompiledSchema>, at: &str) -> String {
    schema.map_or_else(|| "*".to_owned(), |schema| schema.place_on_record(at))
}

/// Asks policy once for each label that is present.
fn ask(
    policies: &Policies,
    question: &Question<'_>,
    present: BTreeSet<Label>,
) -> Result<(Vec<Label>, Vec<Removal>), OutputError> {
    let (mut released, mut removed) = (Vec::new(), Vec::new());
    for label in present {
        let decision = policies
            .release(question, &label)
            .map_err(|source| OutputError::Policy { label: label.clone(), source })?;
        if decision.is_allow() {
            released.push(label);
        } else {
            removed.push(Removal { label, policies: decision.facts().policies });
        }
    }
    Ok((released, removed))
}

/// Removes the fields of forbidden labels; what is left has to fit what clients were told.
async fn remove(
    checked: &Checked,
    mut answer: Value,
    removed: &[Removal],
    lane: &Lane,
    client: &ClientName,
) -> Result<Value, OutputError> {
    let labels: BTreeSet<&Label> = removed.iter().map(|removal| &removal.label).collect();
    if let Err(label) = checked.shape.remove(&mut answer, &labels) {
        return Err(OutputError::Forbidden { label });
    }
    match lane.check(client, &checked.published, answer, |answer| answer).await? {
        (answer, None) => Ok(answer),
        (_, Some(Mismatch { on_record: at, rule, .. })) => {
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            Err(OutputError::Hollow { labels, at, rule })
        }
    }
}
