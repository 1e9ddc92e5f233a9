//! What is looked for, and shown in a line, of a record.

use jiff::Timestamp;
use serde_json::Value;

/// The members of a record that lists and searches go by. A record of a later version, or one that
/// is no JSON at all, has fewer of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecordView {
    /// When it was written.
    pub time: Option<Timestamp>,
    /// `start`, `intent`, `outcome`, `summary`, `change`, `heads`, `witness`.
    pub kind: String,
    /// The call's id.
    pub call: String,
    /// The client that called; of a change, who made it.
    pub client: String,
    /// The user it called for.
    pub user: String,
    /// The run.
    pub run: String,
    /// What was asked for, as it was sent; of a change, what was done to what.
    pub tool: String,
    /// How the call ended.
    pub outcome: String,
    /// The stage that refused or failed.
    pub stage: String,
    /// The refusal in one word.
    pub code: String,
    /// The labels that the answer put on the run.
    pub labels: Vec<String>,
    /// How long the call took, in microseconds.
    pub micros: Option<u64>,
    /// How many calls it counts: 1 for an outcome, the count of a summary, else 0.
    pub calls: u64,
}

impl RecordView {
    /// Reads a record as far as it can be read.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let record: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |pointer| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = text("/record");
        let labels = record.get("labels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let calls = match kind.as_str() {
            "outcome" => 1,
            "summary" => record.get("count").and_then(Value::as_u64).unwrap_or_default(),
            _ => 0,
        };
        // A change is shown as what it is: who, and what to what.
        let change = text("/change/act");
        let asked = if change.is_empty() {
            text("/call/target")
        } else {
            format!("{change} {}", text("/change/what"))
        };
        let (client, actor) = (text("/caller/client"), text("/change/actor"));
        Self {
            time: record.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok()),
            call: text("/call/id"),
            client: if client.is_empty() { actor } else { client },
            user: text("/caller/user/subject"),
            run: text("/caller/run"),
            tool: asked,
            outcome: text("/outcome"),
            stage: text("/stage"),
            code: text("/code"),
            labels: labels.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            micros: record.pointer("/call/micros").and_then(Value::as_u64),
            calls,
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_shape_is_shown_as_far_as_it_is_understood() {
        assert_eq!(RecordView::of(b"no json"), RecordView::default());
        let view = RecordView::of(br#"{"call":"x","code":7,"labels":["a",1],"record":"new","time":"soon"}"#);
        assert_eq!(
            (view.kind.as_str(), view.code.as_str(), view.labels.len(), view.time),
            ("new", "", 1, None)
        );
    }

    #[test]
    fn a_change_says_who_did_what_to_what() {
        let view = RecordView::of(
            br#"{"change":{"act":"revoke","actor":"ops","id":"01","what":"key k1"},"outcome":"allowed","record":"change"}"#,
        );
        assert_eq!((view.client.as_str(), view.tool.as_str(), view.calls), ("ops", "revoke key k1", 0));
        let view = RecordView::of(br#"{"caller":{"client":"bot","user":{"issuer":"i","subject":"ann"}}}"#);
        assert_eq!((view.client.as_str(), view.user.as_str()), ("bot", "ann"));
    }

    #[test]
    fn a_summary_counts_as_many_calls_as_it_says() {
        assert_eq!(RecordView::of(br#"{"code":"x","count":12,"record":"summary"}"#).calls, 12);
        assert_eq!(RecordView::of(br#"{"record":"outcome"}"#).calls, 1);
        assert_eq!(RecordView::of(br#"{"record":"intent"}"#).calls, 0);
    }
}
