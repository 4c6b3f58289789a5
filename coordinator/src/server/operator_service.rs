//! The requests of operators to a running coordinator.

use longtake_shared::protocol::wire;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};
use wire::operator_service_server::OperatorService;

use crate::driver::Input;
use crate::run::event::{Event, StopSource};

/// Serves all operators.
pub(super) struct Operators {
    pub(super) inputs: mpsc::Sender<Input>,
}

impl Operators {
    async fn tell(&self, input: Input) -> Result<(), Status> {
        self.inputs.send(input).await.map_err(|_| Status::unavailable("the run is over"))
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        let (answer, report) = oneshot::channel();
        self.tell(Input::Status(answer)).await?;
        let report = report.await.map_err(|_| Status::unavailable("the run is over"))?;
        let report_json =
            serde_json::to_string(&report).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::StatusReply { report_json }))
    }

    async fn stop(&self, _: Request<wire::StopRequest>) -> Result<Response<wire::StopReply>, Status> {
        self.tell(Input::Event(Event::Stop(StopSource::Operator))).await?;
        Ok(Response::new(wire::StopReply {}))
    }

    async fn checkpoint(
        &self,
        _: Request<wire::CheckpointRequest>,
    ) -> Result<Response<wire::CheckpointReply>, Status> {
        self.tell(Input::Event(Event::CheckpointWanted)).await?;
        Ok(Response::new(wire::CheckpointReply {}))
    }
}
