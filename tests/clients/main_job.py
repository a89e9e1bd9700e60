"""The main job from Python, over gRPC: start a run, watch it to its end, print its output as JSON.

usage: main_job.py HOST:PORT DOCUMENTS GENERATED_DIR
"""
import json
import sys

sys.path.insert(0, sys.argv[3])
import grpc  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from tutti.workflow.v1 import run_pb2, run_service_pb2, workflow_spec_pb2  # noqa: E402


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    service = "/tutti.workflow.v1.RunService/"
    start = channel.unary_unary(
        service + "StartRun",
        request_serializer=run_service_pb2.StartRunRequest.SerializeToString,
        response_deserializer=run_service_pb2.StartRunResponse.FromString,
    )
    watch = channel.unary_stream(
        service + "WatchRun",
        request_serializer=run_service_pb2.WatchRunRequest.SerializeToString,
        response_deserializer=run_service_pb2.WatchRunResponse.FromString,
    )
    get = channel.unary_unary(
        service + "GetRun",
        request_serializer=run_service_pb2.GetRunRequest.SerializeToString,
        response_deserializer=run_service_pb2.GetRunResponse.FromString,
    )
    request = run_service_pb2.StartRunRequest(workflow="research-brief")
    json_format.ParseDict({"topic": "how packages declare dependencies", "documents": sys.argv[2]}, request.input)
    run_id = start(request, timeout=30).run.run_id
    offsets, percents = [], []
    for response in watch(run_service_pb2.WatchRunRequest(run_id=run_id), timeout=60):
        offsets.append(response.event.offset)
        percents.append(response.event.progress_percent)
    assert offsets == list(range(1, len(offsets) + 1)), offsets
    assert percents == sorted(percents), percents
    run = get(run_service_pb2.GetRunRequest(run_id=run_id), timeout=10).run
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run
    print(json.dumps(json_format.MessageToDict(run.output)))

    # An error arrives with its typed details.
    try:
        get(run_service_pb2.GetRunRequest(run_id="none"), timeout=10)
        raise AssertionError("a run that is not there was found")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata()), error


main()
