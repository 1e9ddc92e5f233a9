//! The last look before a request leaves: when the connection that it waited for is there.
//!
//! To connect can take seconds, in which the right to make the call can be taken away. The client's connector
//! runs in the task of the request that it connects for, and so finds there what that request departs on. A
//! connection that turns out not to be needed, since another one became free meanwhile, is finished in a task of
//! its own: nothing departs on it.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    static DEPARTING: Arc<Departure>;
}

/// What a request may leave on.
pub(crate) struct Departure {
    may_leave: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the request waits for a connection that is being made for it.
    is_connecting: AtomicBool,
    /// Whether the request was given up while it did so: then it has not left.
    is_given_up: AtomicBool,
}

impl Departure {
    /// A departure for as long as this holds. It is asked often, and has to be cheap.
    pub(crate) fn new(may_leave: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            may_leave: Box::new(may_leave),
            is_connecting: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
        })
    }

    /// Whether the request may leave.
    pub(crate) fn may_leave(&self) -> bool {
        (self.may_leave)()
    }

    /// Whether the request may not leave over the connection that is there for it now. Then it never does.
    fn refuses(&self) -> bool {
        let refuses = !self.may_leave();
        if refuses {
            self.is_given_up.store(true, Ordering::Release);
        }
        refuses
    }

    /// Whether the request waits for a connection.
    pub(crate) fn is_connecting(&self) -> bool {
        self.is_connecting.load(Ordering::Acquire)
    }

    /// Whether the request was given up before there was a connection for it, once what sent it is gone.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Does something that sends one request, on this departure.
    pub(crate) async fn of<T>(self: Arc<Self>, sending: impl Future<Output = T>) -> T {
        DEPARTING.scope(self, sending).await
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure").field("is_connecting", &self.is_connecting()).finish_non_exhaustive()
    }
}

/// The request may not leave any more. It has not.
#[derive(Debug, thiserror::Error)]
#[error("the request may not leave any more")]
struct MayNotLeave;

/// Looks once more when a connection is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastLook;

impl<S> Layer<S> for LastLook {
    type Service = Looking<S>;
    fn layer(&self, connector: S) -> Looking<S> {
        Looking(connector)
    }
}

/// A connector that looks once more.
#[derive(Clone, Debug)]
pub(super) struct Looking<S>(S);

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Looking<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        Box::pin(async move {
            let waiting = Waiting::begin();
            let connection = connecting.await;
            waiting.end();
            let connection = connection?;
            // Asked anew: where the request has left over another connection, there is none here.
            let refused = DEPARTING.try_with(|departure| departure.refuses()).unwrap_or(false);
            if refused { Err(MayNotLeave.into()) } else { Ok(connection) }
        })
    }
}

/// A request that waits for a connection. One that is dropped with this was given up.
struct Waiting(Option<Arc<Departure>>);

impl Waiting {
    fn begin() -> Self {
        let departure = DEPARTING.try_with(Arc::clone).ok();
        if let Some(departure) = &departure {
            departure.is_connecting.store(true, Ordering::Release);
        }
        Self(departure)
    }

    fn end(mut self) {
        if let Some(departure) = self.0.take() {
            departure.is_connecting.store(false, Ordering::Release);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Only the request's own task knows the departure: elsewhere the request may be on its way.
        if let Some(departure) = &self.0
            && DEPARTING.try_with(|own| Arc::ptr_eq(own, departure)).unwrap_or(false)
        {
            departure.is_given_up.store(true, Ordering::Release);
        }
    }
}
