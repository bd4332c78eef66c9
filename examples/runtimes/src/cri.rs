//! What a kubelet says to its container runtime: the Container Runtime Interface, over the runtime's Unix socket.

pub mod message;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::error::Error;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to one runtime.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Connects once.
    ///
    /// # Errors
    /// If nobody listens at the socket.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Connect { socket: socket.display().to_string(), source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::File { action: "wait on", path: socket.to_owned(), source })?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(failed)?;
        let channel = runtime.block_on(endpoint.timeout(PATIENCE).connect()).map_err(failed)?;
        Ok(Self { runtime, channel })
    }

    /// A method of `runtime.v1.RuntimeService`.
    ///
    /// # Errors
    /// What the runtime says, or that it says nothing in time.
    pub fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Error>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.call_of("RuntimeService", method, request)
    }

    /// A method of any service of `runtime.v1`.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub fn call_of<Q, A>(&self, service: &str, method: &'static str, request: Q) -> Result<A, Error>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = format!("/runtime.v1.{service}/{method}");
        let path = path.parse().map_err(|_| Error::Method(path))?;
        let mut grpc = Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|source| Error::Connect { socket: method.to_owned(), source })?;
            let answer = grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| Error::Call { method, status: Box::new(status) })
        })
    }
}
