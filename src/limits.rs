//! `Admitted → Metered`: are budgets left?

use std::{collections::HashMap, num::NonZeroU32, ops::Deref, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};

use crate::{
    call::{Facts, Passed, Refusal, Stage},
    catalog::{Admitted, Catalog},
    identity::Clients,
    manifest::{ClientName, Rate, ToolName},
};

/// A call that budgets allow.
#[derive(Debug)]
pub struct Metered {
    admitted: Admitted,
}

impl Deref for Metered {
    type Target = Admitted;
    fn deref(&self) -> &Admitted {
        &self.admitted
    }
}

impl Passed for Metered {
    const STAGE: Stage = Stage::Limits;
    fn describe(&self, _: &mut Facts) {}
}

/// Why a call has to come back later.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The client calls too often.
    #[error("rate limited: `{client}` may make {rate} calls; come back in {} s", whole_seconds(*retry))]
    Client {
        /// The client.
        client: ClientName,
        /// Its rate.
        rate: String,
        /// When the next call fits.
        retry: Duration,
    },
    /// The client calls the tool too often.
    #[error("rate limited: `{client}` may call `{tool}` {rate}; come back in {} s", whole_seconds(*retry))]
    Tool {
        /// The client.
        client: ClientName,
        /// The tool.
        tool: ToolName,
        /// The tool's rate.
        rate: String,
        /// When the next call fits.
        retry: Duration,
    },
    /// The caller has no budget at all: it is not of this release.
    #[error("rate limited: `{client}` has no budget")]
    NoBudget {
        /// The client.
        client: ClientName,
    },
}

/// Whole seconds, rounded up, so that a client that waits as told is not early.
#[must_use]
pub fn whole_seconds(retry: Duration) -> u64 {
    retry.as_secs().saturating_add(u64::from(retry.subsec_nanos() > 0)).max(1)
}

impl Refusal for LimitError {
    fn stage(&self) -> Stage {
        Stage::Limits
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Client { .. } => "client_rate",
            Self::Tool { .. } => "tool_rate",
            Self::NoBudget { .. } => "no_budget",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Client { .. } | Self::Tool { .. } | Self::NoBudget { .. } => self.to_string(),
        }
    }
}

/// The rate of a client whose file states none, in calls per minute.
const CLIENT_CALLS_PER_MINUTE: NonZeroU32 = match NonZeroU32::new(600) {
    Some(calls) => calls,
    None => NonZeroU32::MIN,
};

/// The budgets of one process: a rate per client, and per client and tool.
#[derive(Debug, Default)]
pub struct Limits {
    clients: HashMap<ClientName, Budget>,
    tools: HashMap<ClientName, HashMap<ToolName, Budget>>,
}

#[derive(Debug)]
struct Budget {
    rate: String,
    limiter: DefaultDirectRateLimiter,
}

impl Budget {
    fn new(rate: Option<Rate>) -> Self {
        let (calls, period) = rate
            .map_or((CLIENT_CALLS_PER_MINUTE, Duration::from_secs(60)), |rate| (rate.calls(), rate.period()));
        let text = rate.map_or_else(|| format!("{calls}/min"), |rate| rate.to_string());
        // A period is never empty, so the quota exists; one call a minute is the careful fallback.
        let quota = Quota::with_period(period / calls.get())
            .unwrap_or_else(|| Quota::per_minute(NonZeroU32::MIN))
            .allow_burst(calls);
        Self { rate: text, limiter: RateLimiter::direct(quota) }
    }

    /// Spends one call, or says how long to wait.
    fn spend(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refusal| refusal.wait_time_from(self.limiter.clock().now()))
    }
}

impl Limits {
    /// Fresh budgets for the clients and tools of a release.
    #[must_use]
    pub fn build(clients: &Clients, catalog: &Catalog) -> Self {
        let mut limits = Self::default();
        for client in clients.iter() {
            limits.clients.insert(client.name().clone(), Budget::new(client.spec().limits.rate));
            let tools = catalog.allowed_all(client).filter_map(|tool| {
                Some((tool.name().clone(), Budget::new(Some(tool.manifest().limits.rate?))))
            });
            limits.tools.insert(client.name().clone(), tools.collect());
        }
        limits
    }

    /// Spends one call of the client's budget, and of the tool's where it has one.
    ///
    /// # Errors
    /// When a budget is spent: which one, and when to come back.
    pub fn spend(&self, admitted: Admitted) -> Result<Metered, LimitError> {
        let client = admitted.caller().client().name();
        self.spend_request(client)?;
        let tool = admitted.tool().name();
        if let Some(budget) = self.tools.get(client).and_then(|tools| tools.get(tool)) {
            budget.spend().map_err(|retry| LimitError::Tool {
                client: client.clone(),
                tool: tool.clone(),
                rate: budget.rate.clone(),
                retry,
            })?;
        }
        Ok(Metered { admitted })
    }

    /// Spends one call of a client's budget, for what is asked about a call that was let through before.
    ///
    /// # Errors
    /// When the budget is spent, and when to come back.
    pub fn spend_request(&self, client: &ClientName) -> Result<(), LimitError> {
        let budget =
            self.clients.get(client).ok_or_else(|| LimitError::NoBudget { client: client.clone() })?;
        budget.spend().map_err(|retry| LimitError::Client {
            client: client.clone(),
            rate: budget.rate.clone(),
            retry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_says_when_to_come_back() {
        let budget = Budget::new(Some("3/min".parse().unwrap()));
        for _ in 0..3 {
            budget.spend().unwrap();
        }
        let retry = budget.spend().unwrap_err();
        assert!((Duration::from_secs(19)..=Duration::from_secs(20)).contains(&retry), "{retry:?}");
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(19_001)), 20);
    }
}
