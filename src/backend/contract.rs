//! What every backend kind must hold to, whatever it speaks.
//!
//! A kind implements [`Subject`] in its tests and calls [`holds`].

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Answer, BackendError, CallLimits, TimeLimit};

/// How a backend under test treats a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Behaviour {
    /// Answers `{"ok":true}`.
    Prompt,
    /// Takes the call and says nothing.
    Silent,
    /// Answers, one byte at a time, without an end in sight.
    Trickle,
    /// Answers without an end, as fast as it can.
    Flood,
    /// Breaks off in the middle of its answer.
    BreaksOff,
    /// Fails, and says why at length, quoting the secret it was shown.
    Fails,
    /// Is not there.
    Away,
}

/// A backend kind under test.
pub(crate) trait Subject {
    /// Calls a backend that behaves so, with a credential whose secret is [`SECRET`].
    async fn call(
        &self,
        behaviour: Behaviour,
        limits: CallLimits,
        cancel: &CancellationToken,
    ) -> Result<Answer, BackendError>;
}

/// The secret that no message may hold.
pub(crate) const SECRET: &str = "hunter2-is-the-secret";

const LIMITS: CallLimits = CallLimits {
    timeout: Duration::from_millis(300),
    head_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(60),
    response_bytes_max: 4096,
    response_values_max: 100,
};

/// How late a deadline or a cancellation may take effect, on a loaded machine.
const SLACK: Duration = Duration::from_secs(2);

/// Runs the whole contract.
pub(crate) async fn holds(subject: &impl Subject) {
    answers(subject).await;
    times_out(subject).await;
    caps_size(subject).await;
    cancels(subject).await;
    tells_sent_from_unsent(subject).await;
    never_prints_a_credential(subject).await;
}

async fn call(subject: &impl Subject, behaviour: Behaviour) -> Result<Answer, BackendError> {
    subject.call(behaviour, LIMITS, &CancellationToken::new()).await
}

async fn answers(subject: &impl Subject) {
    let answer = call(subject, Behaviour::Prompt).await.unwrap();
    assert_eq!(answer.json(), &serde_json::json!({ "ok": true }));
}

async fn times_out(subject: &impl Subject) {
    for behaviour in [Behaviour::Silent, Behaviour::Trickle] {
        let begun = Instant::now();
        let error = call(subject, behaviour).await.unwrap_err();
        assert_eq!(
            error,
            BackendError::TimedOut { limit: TimeLimit::Total, after: LIMITS.timeout, sent: true },
            "{behaviour:?}"
        );
        assert!(begun.elapsed() < LIMITS.timeout + SLACK, "{behaviour:?}");
    }
}

async fn caps_size(subject: &impl Subject) {
    let limits = CallLimits { timeout: Duration::from_secs(10), ..LIMITS };
    let error = subject.call(Behaviour::Flood, limits, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error, BackendError::TooLarge { limit: LIMITS.response_bytes_max });
}

async fn cancels(subject: &impl Subject) {
    let limits = CallLimits { timeout: Duration::from_secs(60), ..LIMITS };
    for behaviour in [Behaviour::Silent, Behaviour::Trickle] {
        let cancel = CancellationToken::new();
        let begun = Instant::now();
        let (outcome, ()) = tokio::join!(subject.call(behaviour, limits, &cancel), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
        });
        assert_eq!(outcome, Err(BackendError::Cancelled { sent: true }), "{behaviour:?}");
        assert!(begun.elapsed() < SLACK, "{behaviour:?}");
    }
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let outcome = subject.call(Behaviour::Prompt, limits, &cancelled).await;
    assert_eq!(outcome, Err(BackendError::Cancelled { sent: false }));
}

async fn tells_sent_from_unsent(subject: &impl Subject) {
    assert!(!call(subject, Behaviour::Away).await.unwrap_err().effect_possible());
    for behaviour in [Behaviour::Silent, Behaviour::BreaksOff, Behaviour::Fails] {
        assert!(call(subject, behaviour).await.unwrap_err().effect_possible(), "{behaviour:?}");
    }
}

async fn never_prints_a_credential(subject: &impl Subject) {
    for behaviour in [
        Behaviour::Prompt,
        Behaviour::Silent,
        Behaviour::Trickle,
        Behaviour::Flood,
        Behaviour::BreaksOff,
        Behaviour::Fails,
        Behaviour::Away,
    ] {
        let outcome = call(subject, behaviour).await;
        let shown = match &outcome {
            Ok(answer) => format!("{answer:?} {}", answer.json()),
            Err(error) => format!("{error} {error:?} {}", error.public_message()),
        };
        assert!(!shown.contains(SECRET), "{behaviour:?}: {shown}");
    }
}
