#include "services/gateway/rpc/rest_handler.h"

#include <grpcpp/support/byte_buffer.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/semaphore.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"

namespace tutti::gateway {
namespace {

constexpr absl::Duration kKeepAlive = absl::Seconds(15);

grpc::ByteBuffer ToBytes(const google::protobuf::Message& message) {
  grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool FromBytes(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::Slice slice;
  if (!bytes.DumpToSingleSlice(&slice).ok()) return false;
  return message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

// `10S`, `500m`: gRPC's form of a timeout. Infinite for what is none.
absl::Duration ParseGrpcTimeout(const std::string& text) {
  int64_t value = 0;
  if (text.size() < 2 || text.size() > 9 || !absl::SimpleAtoi(text.substr(0, text.size() - 1), &value) || value < 0) {
    return absl::InfiniteDuration();
  }
  switch (text.back()) {
    case 'H':
      return absl::Hours(value);
    case 'M':
      return absl::Minutes(value);
    case 'S':
      return absl::Seconds(value);
    case 'm':
      return absl::Milliseconds(value);
    case 'u':
      return absl::Microseconds(value);
    case 'n':
      return absl::Nanoseconds(value);
    default:
      return absl::InfiniteDuration();
  }
}

int HttpStatusFor(const absl::Status& status) {
  std::string reason = ReasonOf(status);
  if (reason == "METHOD_NOT_ALLOWED") return 405;
  if (reason == "UNSUPPORTED_MEDIA_TYPE") return 415;
  // gRPC's own words for a message over the server's limit.
  bool too_large = absl::StrContains(status.message(), "message larger than max");
  if (reason == "INPUT_TOO_LARGE" || too_large) return 413;
  return HttpStatusOf(status.code());
}

HttpReply::Headers ErrorHeaders(const absl::Status& status) {
  HttpReply::Headers headers;
  if (ReasonOf(status) == "METHOD_NOT_ALLOWED") headers.emplace_back("Allow", MetadataOf(status, "allow"));
  absl::Duration retry = RetryDelayOf(status);
  bool busy = status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kResourceExhausted;
  if (HttpStatusFor(status) != 413 && (retry > absl::ZeroDuration() || busy)) {
    headers.emplace_back("Retry-After",
                         absl::StrCat(std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(retry, absl::Seconds(1))))));
  }
  return headers;
}

// The two writers of an event stream: the events themselves, and a comment when nothing was sent for a while.
struct EventStream {
  EventStream(Executor& executor, HttpReply& reply) : turn(executor, 1, 2), reply(reply) {}
  Semaphore turn;
  HttpReply& reply;
  std::stop_source done;
  absl::Time last_write;
};

Task<bool> WriteInTurn(EventStream& out, std::string data, const Clock& clock) {
  co_await out.turn.Acquire();
  bool ok = co_await out.reply.Write(std::move(data));
  out.last_write = clock.Now();
  out.turn.Release();
  co_return ok;
}

Task<bool> KeepAlive(EventStream& out, CallContext& call, TimerService& timers, const Clock& clock,
                     std::stop_source cancel, std::string nothing) {
  for (;;) {
    bool elapsed = co_await Sleep(timers, *call.executor, kKeepAlive, out.done.get_token());
    if (!elapsed) co_return true;
    if (clock.Now() - out.last_write < kKeepAlive / 2) continue;
    if (!co_await WriteInTurn(out, nothing, clock)) {
      cancel.request_stop();  // the client has gone
      co_return false;
    }
  }
}

// Sends `bytes` and everything after it. False when the client has gone.
Task<bool> PumpEvents(ReadStream<grpc::ByteBuffer>& stream, const Route& route, bool events, grpc::ByteBuffer bytes,
                      EventStream& out, const Clock& clock) {
  bool open = true, more = true;
  while (more && open) {
    auto message = Transcoder::NewResponse(route);
    std::string text;
    if (FromBytes(bytes, message.get())) {
      auto json = Transcoder::ToJsonText(route, *message);
      if (json.ok()) text = *std::move(json);
    }
    if (text.empty()) text = "null";
    std::string id = Transcoder::EventId(route, *message);
    std::string chunk = events ? absl::StrCat(id.empty() ? "" : absl::StrCat("id: ", id, "\n"), "data: ", text, "\n\n")
                               : absl::StrCat("{\"result\":", text, "}\n");
    open = co_await WriteInTurn(out, std::move(chunk), clock);
    if (open) more = co_await stream.Read(bytes);
  }
  out.done.request_stop();
  co_return open;
}

}  // namespace

std::string RestHandler::TooLarge(int64_t limit) {
  absl::Status status =
      Error(absl::StatusCode::kResourceExhausted, "BODY_TOO_LARGE",
            absl::StrCat("the request's body is larger than ", limit, " bytes; the limit is --gateway.max-body-bytes"))
          .Metadata("limit", absl::StrCat(limit));
  return ErrorJson(status, 413);
}

std::string RestHandler::Busy(const std::string& what) {
  return ErrorJson(Error(absl::StatusCode::kUnavailable, "TOO_MANY_CONNECTIONS", what).RetryAfter(absl::Seconds(1)),
                   503);
}

std::string RestHandler::Malformed(int http_status, const std::string& what) {
  const char* refused = http_status == 400 ? "this is no HTTP request: " : "the request is refused: ";
  return ErrorJson(Error(absl::StatusCode::kInvalidArgument, "MALFORMED_HTTP", absl::StrCat(refused, what)),
                   http_status);
}

Task<absl::Status> RestHandler::Unary(CallContext& call, const Transcoder::Call& target, HttpReply& reply) {
  grpc::ByteBuffer request = ToBytes(*target.request), response;
  const std::string& method = target.route->grpc_method;
  const LocalMethods& local_methods = serving_.runtime().local_methods;
  auto raw = local_methods.FindRaw(absl::string_view(method).substr(1));
  if (!raw) {
    call.call_id = serving_.runtime().ids.NewUlid();
    raw = local_methods.FindCarried(absl::string_view(method).substr(1));
  }
  if (!raw) co_return absl::UnimplementedError(absl::StrCat("nobody serves ", method));
  CallContext bounded = call;
  if (call.deadline == absl::InfiniteFuture()) bounded.deadline = serving_.runtime().clock.Now() + timeout_;
  TUTTI_CO_RETURN_IF_ERROR(co_await raw->CallBytes(bounded, request, response));
  auto message = Transcoder::NewResponse(*target.route);
  if (!FromBytes(response, message.get())) co_return absl::DataLossError("the service's answer cannot be read");
  TUTTI_CO_ASSIGN_OR_RETURN(std::string body, Transcoder::ToJsonText(*target.route, *message));
  body += "\n";
  HttpReply::Headers headers;
  co_await reply.Send(200, "application/json", std::move(body), headers);
  co_return absl::OkStatus();
}

Task<absl::Status> RestHandler::Stream(CallContext& call, const Transcoder::Call& target, bool events,
                                       HttpReply& reply) {
  std::stop_source cancel;
  std::stop_callback outer(call.stop, [cancel]() mutable { cancel.request_stop(); });
  CallContext inner = call;
  inner.stop = cancel.get_token();
  grpc::ByteBuffer request = ToBytes(*target.request);
  const std::string& method = target.route->grpc_method;
  const LocalMethods& local_methods = serving_.runtime().local_methods;
  auto raw = local_methods.FindRawStream(absl::string_view(method).substr(1));
  if (!raw) raw = local_methods.FindCarriedStream(absl::string_view(method).substr(1));
  auto stream = raw ? raw->OpenBytes(inner, request) : methods_.Find(method)->Open(inner, request);
  const std::string type = events ? "text/event-stream" : "application/x-ndjson";
  HttpReply::Headers headers;
  headers.emplace_back("Cache-Control", "no-cache");
  headers.emplace_back("X-Accel-Buffering", "no");
  grpc::ByteBuffer bytes;
  bool more = co_await stream->Read(bytes);
  if (!more) {
    // Ended before the first message: an error still has a status line of its own.
    absl::Status status = co_await stream->Finish();
    TUTTI_CO_RETURN_IF_ERROR(status);
    co_await reply.Send(200, type, "", headers);
    co_return absl::OkStatus();
  }
  co_await reply.Begin(200, type, headers);
  EventStream out(*call.executor, reply);
  const Clock& clock = serving_.runtime().clock;
  out.last_write = clock.Now();
  std::vector<Task<bool>> both;
  both.push_back(PumpEvents(*stream, *target.route, events, bytes, out, clock));
  both.push_back(KeepAlive(out, call, serving_.runtime().timers, clock, cancel, events ? ": keep-alive\n\n" : "\n"));
  std::vector<bool> results = co_await WhenAll(std::move(both));
  bool open = results[0];
  if (!open) stream->Cancel();
  absl::Status status = co_await stream->Finish();
  if (open && !status.ok()) {
    std::string error = ErrorJson(status, HttpStatusFor(status));
    std::string last = events ? absl::StrCat("event: error\ndata: ", error, "\n\n") : absl::StrCat(error, "\n");
    co_await reply.Write(std::move(last));
  }
  if (open) co_await reply.End();
  co_return absl::OkStatus();
}

Task<void> RestHandler::Handle(const HttpRequest& request, HttpReply& reply) {
  if (IsHealthCheck(request.target)) {
    HttpReply::Headers none;
    co_await reply.Send(200, "text/plain; charset=utf-8", "ok\n", none);
    co_return;
  }
  RestRequest rest{request.method, request.target, request.header("content-type"), request.header("last-event-id"),
                   request.body};
  absl::Status allowed = CheckCaller(rules_, request.header("host"), request.header("origin"));
  absl::StatusOr<Transcoder::Call> target =
      allowed.ok() ? transcoder_.ToCall(rest) : absl::StatusOr<Transcoder::Call>(allowed);
  absl::Status status = target.status();
  std::string name = target.ok() ? absl::StrCat(request.method, " ", target->route->grpc_method) : request.method;
  Span span =
      serving_.tracer().Start(name, SpanKind::kServer, TraceContext::FromTraceparent(request.header("traceparent")));
  span.Set("http.request.method", request.method);
  absl::Time start = serving_.runtime().clock.Now();
  if (target.ok()) {
    CallContext call(*executor_, serving_.tracer());
    call.actor = "anonymous";
    call.origin = request.remote;
    call.trace = span.context();
    call.stop = request.stop;
    absl::Duration timeout = ParseGrpcTimeout(request.header("grpc-timeout"));
    if (timeout != absl::InfiniteDuration()) call.deadline = serving_.runtime().clock.Now() + timeout;
    if (target->route->method->server_streaming()) {
      bool events = absl::StrContains(request.header("accept"), "text/event-stream");
      status = co_await Stream(call, *target, events, reply);
    } else {
      status = co_await Unary(call, *target, reply);
    }
  }
  int http_status = status.ok() ? 200 : HttpStatusFor(status);
  if (!status.ok()) {
    HttpReply::Headers headers = ErrorHeaders(status);
    co_await reply.Send(http_status, "application/json", ErrorJson(status, http_status) + "\n", std::move(headers));
  }
  span.Set("http.response.status_code", absl::StrCat(http_status));
  if (http_status >= 500) span.SetStatus(status);
  serving_.runtime().rpc_metrics.Record(target.ok() ? absl::StrCat("rest:", target->route->grpc_method) : "rest:_OTHER",
                                        status.code(), serving_.runtime().clock.Now() - start);
}

}  // namespace tutti::gateway
